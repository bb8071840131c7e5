// Where UnpackedFile's bytes come from: the file itself, or what is packed in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace ee::format {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills the front of `into` (not empty) and returns how many bytes; 0 only at the end.
  virtual std::size_t read(std::span<char> into) = 0;
  virtual uint64_t file_bytes() const = 0;  // that were taken from the file for it
};

// UserError naming the file if it is absent, a folder or not readable.
std::unique_ptr<ByteSource> open_file(const std::filesystem::path& path);

// `packed` first gives `head` again, which was read from it already; `name` is the file's, for messages.
std::unique_ptr<ByteSource> put_back(std::string head, std::unique_ptr<ByteSource> packed);
std::unique_ptr<ByteSource> unpack_gzip(std::unique_ptr<ByteSource> packed, std::string name);
std::unique_ptr<ByteSource> unpack_zstd(std::unique_ptr<ByteSource> packed, std::string name);

}  // namespace ee::format
