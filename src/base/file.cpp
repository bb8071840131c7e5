#include "ee/base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "ee/base/error.h"

namespace ee::base {
namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(const char* action, const fs::path& path, int error) {
  throw UserError("cannot {} {}: {}{}", action, path.string(), std::strerror(error),
                  error == ENOSPC ? "; free some space or choose another folder" : "");
}

void sync_path(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail("open", path, errno);
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  if (result != 0) fail("sync", path, error);
}

void refuse_existing(const fs::path& path) {
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(path, ignored)))
    throw UserError("output {} exists already; remove it or choose another name", path.string());
}

fs::path without_slash(const fs::path& path) {  // "out/" -> "out"
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

// Really creates something for a moment: permissions do not tell of read-only or full disks, and mean nothing
// to root.
void try_to_create_in(const fs::path& folder) {
  std::string name = (folder / ".ee-writable-XXXXXX").string();
  if (!::mkdtemp(name.data())) fail("create anything in", folder, errno);
  ::rmdir(name.c_str());
}

void move_into_place(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail("rename to", to, errno);
}

}  // namespace

std::string read_text_file(const fs::path& path) {
  if (fs::is_directory(path))
    throw UserError("cannot read {}: it is a folder, a file was expected", path.string());
  std::ifstream in(path, std::ios::binary);
  if (!in) throw UserError("cannot read {}: {}", path.string(), std::strerror(errno));
  std::ostringstream text;
  text << in.rdbuf();
  if (in.bad()) throw UserError("cannot read {}: {}", path.string(), std::strerror(errno));
  return std::move(text).str();
}

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  const fs::path temporary = path.string() + ".tmp";
  try {
    OutputFile out(temporary);
    out.write(bytes);
    out.close();
    move_into_place(temporary, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
  sync_path(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

void check_output_folder(const fs::path& path) {
  std::error_code ignored;
  fs::path there = fs::absolute(without_slash(path));
  while (!fs::exists(there, ignored) && there.has_relative_path()) there = there.parent_path();
  try_to_create_in(there);
}

void check_new_output(const fs::path& path) {
  refuse_existing(without_slash(path));
  check_output_folder(path);
}

void check_output_file(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    throw UserError("cannot write {}: it is a folder, a file was expected", path.string());
  try_to_create_in(fs::absolute(path).parent_path());
}

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail("open", path, errno);
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw UserError("cannot read {}: it is not a regular file", path.string());
  }
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ > 0) {
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    const int error = errno;
    ::close(descriptor);
    if (address == MAP_FAILED) fail("map", path, error);
    data_ = static_cast<const std::byte*>(address);
  } else {
    ::close(descriptor);
  }
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void release_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
  // Whole pages only: a neighbour's bytes share the first and the last one.
  const std::uintptr_t first = (begin + page - 1) / page * page, last = (begin + bytes.size()) / page * page;
  // Advice: when it is not taken, nothing but memory is lost.
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

OutputFile::OutputFile(const fs::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail("write", path, errno);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write", path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void OutputFile::close() {
  const int descriptor = std::exchange(descriptor_, -1);
  const int synced = ::fsync(descriptor);
  const int sync_error = errno;
  if (::close(descriptor) != 0) fail("close", path_, errno);
  if (synced != 0) fail("sync", path_, sync_error);
}

namespace {

constexpr std::string_view kPartial =
    ".partial-";  // ".NAME.partial-PID" beside NAME while it is being filled

// What processes that were killed before they could commit `target` have left.
void remove_abandoned(const fs::path& target) {
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  const std::string prefix = fmt::format(".{}{}", target.filename().string(), kPartial);
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    pid_t owner = 0;
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data() + prefix.size(), end, owner);
    if (error != std::errc() || rest != end || owner <= 0) continue;
    if (::kill(owner, 0) != 0 && errno == ESRCH) fs::remove_all(entry.path(), ignored);
  }
}

}  // namespace

AtomicDirectory::AtomicDirectory(const fs::path& target) : target_(without_slash(target)) {
  refuse_existing(target_);
  std::error_code error;
  if (target_.has_parent_path()) fs::create_directories(target_.parent_path(), error);
  if (error) fail("create folder", target_.parent_path(), error.value());
  remove_abandoned(target_);
  temporary_ =
      target_.parent_path() / fmt::format(".{}{}{}", target_.filename().string(), kPartial, ::getpid());
  fs::remove_all(temporary_, error);
  if (!fs::create_directory(temporary_, error)) fail("create folder", temporary_, error.value());
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  for (const auto& entry : fs::recursive_directory_iterator(temporary_)) sync_path(entry.path());
  sync_path(temporary_);
  move_into_place(temporary_, target_);
  committed_ = true;
  sync_path(target_.has_parent_path() ? target_.parent_path() : fs::path("."));
}

FolderLock::FolderLock(const fs::path& folder) {
  descriptor_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ < 0) fail("open", folder, errno);
  while (::flock(descriptor_, LOCK_EX) != 0) {
    if (errno == EINTR) continue;
    const int error = errno;
    ::close(descriptor_);
    fail("lock", folder, error);
  }
}

FolderLock::~FolderLock() { ::close(descriptor_); }

void link_or_copy(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::create_hard_link(fs::canonical(from), to, error);
  if (!error) return;
  fs::copy_file(from, to, error);
  if (error) fail("copy to", to, error.value());
}

}  // namespace ee::base
