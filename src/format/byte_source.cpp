#include "byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ee/base/error.h"

namespace ee::format {

using base::UserError;

namespace {

class FileSource : public ByteSource {
 public:
  explicit FileSource(const std::filesystem::path& path)
      : name_(path.string()), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) throw UserError("cannot read {}: {}", name_, std::strerror(errno));
    struct stat status {};
    if (::fstat(descriptor_, &status) == 0 && S_ISDIR(status.st_mode)) {
      ::close(descriptor_);
      throw UserError("cannot read {}: it is a folder, a file was expected", name_);
    }
  }
  ~FileSource() override { ::close(descriptor_); }
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;

  std::size_t read(std::span<char> into) override {
    for (;;) {
      const ssize_t count = ::read(descriptor_, into.data(), into.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw UserError("cannot read {}: {}", name_, std::strerror(errno));
      bytes_ += static_cast<uint64_t>(count);
      return static_cast<std::size_t>(count);
    }
  }
  uint64_t file_bytes() const override { return bytes_; }

 private:
  std::string name_;
  int descriptor_;
  uint64_t bytes_ = 0;
};

class PutBack : public ByteSource {
 public:
  PutBack(std::string head, std::unique_ptr<ByteSource> rest)
      : head_(std::move(head)), rest_(std::move(rest)) {}

  std::size_t read(std::span<char> into) override {
    if (at_ == head_.size()) return rest_->read(into);
    const std::size_t count = std::min(into.size(), head_.size() - at_);
    std::memcpy(into.data(), head_.data() + at_, count);
    at_ += count;
    return count;
  }
  uint64_t file_bytes() const override { return rest_->file_bytes(); }

 private:
  std::string head_;
  std::size_t at_ = 0;
  std::unique_ptr<ByteSource> rest_;
};

}  // namespace

std::unique_ptr<ByteSource> open_file(const std::filesystem::path& path) {
  return std::make_unique<FileSource>(path);
}

std::unique_ptr<ByteSource> put_back(std::string head, std::unique_ptr<ByteSource> packed) {
  return std::make_unique<PutBack>(std::move(head), std::move(packed));
}

}  // namespace ee::format
