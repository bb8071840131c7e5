#include "ee/format/record_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/hash.h"

namespace ee::format {
namespace fs = std::filesystem;
using base::UserError;

namespace {

constexpr size_t kChecksumBytes = 16;
using Checksum = std::array<char, kChecksumBytes>;

struct Header {
  std::array<char, 8> magic = {'E', 'E', 'R', 'E', 'C', 'O', 'R', '1'};
  uint64_t record_bytes = 0, records = 0;
  bool operator==(const Header&) const = default;
};
static_assert(sizeof(Header) == 24);

Checksum checksum_of(std::span<const std::byte> record) {
  Checksum checksum;
  std::memcpy(checksum.data(), base::hash_bytes(record).data(), checksum.size());
  return checksum;
}

[[noreturn]] void fail(const char* action, const fs::path& path) {
  throw UserError("cannot {} {}: {}{}", action, path.string(), std::strerror(errno),
                  errno == ENOSPC ? "; free some space or choose another folder" : "");
}

void write_at(int descriptor, const fs::path& path, std::span<const std::byte> bytes, int64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("write", path);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += written;
  }
}

// Bytes behind the end of the file are left as they are.
void read_at(int descriptor, const fs::path& path, std::span<std::byte> bytes, int64_t offset) {
  while (!bytes.empty()) {
    const ssize_t got = ::pread(descriptor, bytes.data(), bytes.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read", path);
    if (got == 0) return;
    bytes = bytes.subspan(static_cast<size_t>(got));
    offset += got;
  }
}

template <typename T>
std::span<std::byte> bytes_of(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

}  // namespace

RecordFile::RecordFile(const fs::path& path, int64_t records, int64_t record_bytes)
    : path_(path), records_(records), record_bytes_(record_bytes) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) throw UserError("cannot create folder {}: {}", path.parent_path().string(), error.message());
  const base::FolderLock one_process_makes_it(path.parent_path());
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail("open", path);
  Header wanted{.record_bytes = static_cast<uint64_t>(record_bytes),
                .records = static_cast<uint64_t>(records)};
  Header header{.magic = {}};
  read_at(descriptor_, path_, bytes_of(header), 0);
  const bool is_new = header == Header{.magic = {}};
  if (is_new) write_at(descriptor_, path_, bytes_of(wanted), 0);
  if (is_new || header == wanted) return;
  ::close(descriptor_);
  throw UserError("{} does not hold {} records of {} bytes; delete it, or choose another folder",
                  path.string(), records, record_bytes);
}

RecordFile::RecordFile(RecordFile&& other) noexcept
    : path_(std::move(other.path_)),
      records_(other.records_),
      record_bytes_(other.record_bytes_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

RecordFile::~RecordFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

bool RecordFile::has(int64_t index) const {
  Checksum checksum{};
  read_at(descriptor_, path_, bytes_of(checksum), checksum_offset(index));
  return checksum != Checksum{};
}

void RecordFile::write(int64_t index, std::span<const std::byte> record) {
  EE_CHECK(std::ssize(record) == record_bytes_, "a record of {} bytes, not {}", record.size(), record_bytes_);
  Checksum checksum = checksum_of(record);
  write_at(descriptor_, path_, record, record_offset(index));
  write_at(descriptor_, path_, bytes_of(checksum), checksum_offset(index));
}

void RecordFile::read(int64_t index, std::span<std::byte> record) const {
  EE_CHECK(std::ssize(record) == record_bytes_, "a record of {} bytes, not {}", record.size(), record_bytes_);
  Checksum expected{};
  read_at(descriptor_, path_, bytes_of(expected), checksum_offset(index));
  read_at(descriptor_, path_, record, record_offset(index));
  if (checksum_of(record) != expected)
    throw UserError("{}: record {} is missing or damaged; delete the file, it will be made again",
                    path_.string(), index);
}

int64_t RecordFile::checksum_offset(int64_t index) const {
  EE_CHECK(index >= 0 && index < records_, "record {} of {}", index, records_);
  return static_cast<int64_t>(sizeof(Header)) + index * static_cast<int64_t>(kChecksumBytes);
}

int64_t RecordFile::record_offset(int64_t index) const {
  return static_cast<int64_t>(sizeof(Header)) + records_ * static_cast<int64_t>(kChecksumBytes) +
         index * record_bytes_;
}

}  // namespace ee::format
