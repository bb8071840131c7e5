// A file's bytes front to back. gzip and Zstandard are recognized by their first bytes, whatever the file is
// called, and unpacked on the way, so that no more of it than a buffer is in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ee::format {

class ByteSource;

enum class Packing { none, gzip, zstd };

// Also reads pipes: nothing is read twice. Every function that reads is a UserError naming the file when it
// cannot be read, or when what is packed is damaged or cut off.
class UnpackedFile {
 public:
  static constexpr int kEnd = -1;

  explicit UnpackedFile(const std::filesystem::path& path);  // UserError: absent, a folder, not readable
  ~UnpackedFile();
  UnpackedFile(UnpackedFile&&) noexcept;

  const std::filesystem::path& path() const { return path_; }
  Packing packing() const { return packing_; }

  // The next byte, or kEnd; get() also passes over it.
  int peek() { return at_ < end_ || fill(1) ? static_cast<unsigned char>(buffer_[at_]) : kEnd; }
  int get() {
    const int byte = peek();
    if (byte != kEnd) ++at_;
    return byte;
  }

  // The next `count` bytes without passing over them; fewer only where the file ends. Valid until the next
  // call.
  std::string_view head(std::size_t count);
  void skip_byte_order_mark();  // of UTF-8, if one is next
  std::string read_rest();

  // Of the file as it lies on disk, packed: how far reading has come, for progress bars.
  uint64_t bytes_read() const;

 private:
  bool fill(std::size_t wanted);  // whether so many bytes are in the buffer now

  std::filesystem::path path_;
  std::unique_ptr<ByteSource> source_;
  Packing packing_ = Packing::none;
  std::vector<char> buffer_;
  std::size_t at_ = 0, end_ = 0;  // of the buffer: what was read and is not passed over yet
};

}  // namespace ee::format
