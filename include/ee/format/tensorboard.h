// TensorBoard event files with scalars.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace ee::format {

// Writes `folder`/events.out.tfevents.<seconds>.<host>.<pid>.<n>: always a new file, so that a resumed run
// adds one beside the first run's; TensorBoard shows all files of a folder as one run. Format: TFRecord
// frames (length, masked CRC-32C) of protobuf Event messages.
class TensorBoardWriter {
 public:
  explicit TensorBoardWriter(
      const std::filesystem::path& folder);  // creates the folder; UserError if it cannot
  ~TensorBoardWriter();
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  TensorBoardWriter& operator=(const TensorBoardWriter&) = delete;

  // Buffered. UserError names the file when the disk refuses.
  void add_scalar(std::string_view tag, double value, int64_t step);  // stored as float32
  void flush();  // hands the buffer to the operating system

  const std::filesystem::path& path() const { return path_; }

 private:
  void add_event(std::string_view body);

  std::filesystem::path path_;
  std::string buffer_;
  int descriptor_ = -1;
};

}  // namespace ee::format
