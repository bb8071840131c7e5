// TensorBoard event files with scalars.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "ee/base/file.h"

namespace ee::format {

// Writes `folder`/events.out.tfevents.<seconds>.<host>.<pid>.<n>: always a new file, so that a resumed run
// adds one beside the first run's; TensorBoard shows all files of a folder as one run. Format: TFRecord
// frames (length, masked CRC-32C) of protobuf Event messages.
class TensorBoardWriter {
 public:
  explicit TensorBoardWriter(
      const std::filesystem::path& folder);  // creates the folder; UserError if it cannot
  ~TensorBoardWriter();                      // flushes; a disk that refuses then is ignored
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  TensorBoardWriter& operator=(const TensorBoardWriter&) = delete;

  void add_scalar(std::string_view tag, double value, int64_t step);  // stored as float32; buffered
  // Hands the buffer to the operating system. UserError names the file when the disk refuses.
  void flush();

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  base::OutputFile file_;
  std::string buffer_;
};

// CRC-32C (Castagnoli): of "123456789" it is e3069283.
uint32_t crc32c(std::string_view bytes);

}  // namespace ee::format
