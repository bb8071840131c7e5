// Records of one size in one file, each there or not: what several processes fill together, and read again
// later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace ee::format {

// The file, little-endian:
//   8 bytes "EERECOR1" | u64 bytes of a record | u64 N | 16 bytes checksum[N] | record[N]
// A checksum is the first half of the record's hex XXH3-128; zeros: the record is not there. It is written
// behind the record, so one that a crash cut off is not there. What was never written is a hole, or lies
// behind the end of the file.
class RecordFile {
 public:
  // Opens the file or makes an empty one, also with several processes at once. UserError: it is no such file,
  // or one of other sizes; cannot be read or written.
  RecordFile(const std::filesystem::path& path, int64_t records, int64_t record_bytes);
  ~RecordFile();
  RecordFile(RecordFile&& other) noexcept;
  RecordFile& operator=(RecordFile&&) = delete;

  bool has(int64_t index) const;
  // UserError: the disk is full.
  void write(int64_t index, std::span<const std::byte> record);
  // UserError: the record is not there, or not as it was written.
  void read(int64_t index, std::span<std::byte> record) const;

 private:
  int64_t checksum_offset(int64_t index) const;
  int64_t record_offset(int64_t index) const;

  std::filesystem::path path_;
  int64_t records_, record_bytes_;
  int descriptor_ = -1;
};

}  // namespace ee::format
