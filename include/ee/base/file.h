// Files: whole-file reads, memory maps, and writes that either happen completely or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace ee::base {

// The whole file as text. UserError if it cannot be read.
std::string read_text_file(const std::filesystem::path& path);

// Writes to `path`.tmp, syncs it, renames it over `path`. UserError (disk full, no permission, ...) leaves
// the old file as it was and no temporary behind.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// In front of work that takes long: would its output find a place? Each tries it out and leaves nothing
// behind.
// A folder that others are created in: UserError unless it, or the nearest one above that there is, can be
// written.
void check_output_folder(const std::filesystem::path& path);
// What is created: UserError likewise, and if it exists.
void check_new_output(const std::filesystem::path& path);
// A file that is replaced if it exists: UserError if it is a folder, or its folder is missing or cannot be
// written.
void check_output_file(const std::filesystem::path& path);

// A read-only memory map of a whole file; pages are read on first touch. Movable; the bytes live as long as
// it does.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  // UserError if it cannot be opened
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Lets go of the memory behind a part of a MappedFile that has been read: it is read again on the next touch.
// Without this a weight that was copied counts twice.
void release_pages(std::span<const std::byte> bytes);

// A file being written front to back; every short write is a UserError naming the file. Not atomic by itself:
// write inside an AtomicDirectory.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view bytes) { write(std::as_bytes(std::span(bytes.data(), bytes.size()))); }
  void close();  // syncs to disk and closes; UserError if the disk refuses

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// A folder that appears complete or not at all: fill `path()`, then commit(). Without commit() the destructor
// removes everything that was written.
class AtomicDirectory {
 public:
  // UserError if `target` exists or its parent cannot be written. Parents are created.
  explicit AtomicDirectory(const std::filesystem::path& target);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const std::filesystem::path& path() const { return temporary_; }
  void commit();  // syncs every file, then renames the folder to `target`

 private:
  std::filesystem::path target_, temporary_;
  bool committed_ = false;
};

// Held by one process at a time; the constructor waits for it. The folder must exist. Released at the end,
// also of a process that is killed.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_ = -1;
};

// Hard-links when source and target share a filesystem, copies otherwise.
void link_or_copy(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace ee::base
