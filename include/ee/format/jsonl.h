// JSON Lines: one JSON value a line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <istream>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace ee::format {

class JsonlReader {
 public:
  explicit JsonlReader(const std::filesystem::path& path);  // UserError if it cannot be opened
  // Reads from `in`, which must outlive this object; `name` stands for it in messages ("standard input").
  JsonlReader(std::istream& in, std::string name);
  JsonlReader(const JsonlReader&) = delete;
  JsonlReader& operator=(const JsonlReader&) = delete;

  // The next line's value; false at the end. Blank lines are passed over. UserError names file:line when it
  // is not JSON.
  bool next(nlohmann::json& value);

  std::string where() const;  // "file:line" of the value that next() gave last, for the caller's messages
  // Bytes up to and including that line, for progress bars.
  uint64_t bytes_read() const { return bytes_read_; }

 private:
  std::ifstream file_;
  std::istream* in_;
  std::string name_;
  uint64_t line_ = 0, bytes_read_ = 0;
};

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
