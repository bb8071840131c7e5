// JSON Lines, written: one JSON value a line. records.h reads them.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace ee::format {

// Appends lines to a file; each one is handed to the operating system when write() returns.
class JsonlWriter {
 public:
  explicit JsonlWriter(const std::filesystem::path& path);  // UserError if it cannot be opened for appending
  ~JsonlWriter();
  JsonlWriter(const JsonlWriter&) = delete;
  JsonlWriter& operator=(const JsonlWriter&) = delete;

  // UserError (disk full, ...) names the file. NaN and infinities become null.
  void write(const nlohmann::json& value);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace ee::format
