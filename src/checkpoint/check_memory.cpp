#include "check_memory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "ee/base/error.h"
#include "ee/base/hash.h"
#include "folder_parts.h"

namespace ee::checkpoint {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr int64_t kSettledNs = 2'000'000'000;  // the coarsest clock of a file system in use (FAT's)

// The same for every way to name the folder.
std::string key_of(const fs::path& folder) {
  std::error_code error;
  const fs::path real = fs::canonical(folder, error);
  base::Hasher hasher;
  hasher.update((error ? fs::absolute(folder) : real).string());
  return hasher.digest();
}

std::optional<fs::path> cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache && *cache == '/') return fs::path(cache) / "ee-tune" / "checked";
  const char* home = std::getenv("HOME");
  if (home && *home == '/') return fs::path(home) / ".cache" / "ee-tune" / "checked";
  return std::nullopt;
}

// In the folder for temporary files, where anybody may have made one of this name: only our own counts.
std::optional<fs::path> own_temporary_folder(bool create) {
  std::error_code error;
  const fs::path folder = fs::temp_directory_path(error) / fmt::format("ee-tune-{}", ::geteuid());
  if (error) return std::nullopt;
  if (create) ::mkdir(folder.c_str(), 0700);
  struct stat status {};
  const bool own = ::lstat(folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
                   status.st_uid == ::geteuid() && (status.st_mode & 0022) == 0;
  return own ? std::optional(folder) : std::nullopt;
}

enum class Purpose { read, write };

// Best first.
std::vector<fs::path> places(const fs::path& folder, Purpose purpose) {
  std::vector<fs::path> files = {folder / kCheckedFile};
  for (const auto& other : {cache_folder(), own_temporary_folder(purpose == Purpose::write)})
    if (other) files.push_back(*other / (key_of(folder) + ".json"));
  return files;
}

Json to_json(const CheckedFile& file) {
  return {{"file", file.name},
          {"bytes", file.identity.bytes},
          {"modified_ns", file.identity.modified_ns},
          {"inode", file.identity.inode},
          {"device", file.identity.device},
          {"checksums", file.checksums},
          {"differ", file.differ}};
}

CheckedFile from_json(const Json& json) {
  return {.name = json.at("file").get<std::string>(),
          .identity = {.bytes = json.at("bytes").get<int64_t>(),
                       .modified_ns = json.at("modified_ns").get<int64_t>(),
                       .inode = json.at("inode").get<int64_t>(),
                       .device = json.at("device").get<int64_t>()},
          .checksums = json.at("checksums").get<std::string>(),
          .differ = json.at("differ").get<std::vector<std::string>>()};
}

// Nothing of a file that cannot be read or is not of our making.
std::vector<CheckedFile> read_memory(const fs::path& path) {
  std::vector<CheckedFile> files;
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return files;
  try {
    const Json json = Json::parse(base::read_text_file(path));
    for (const Json& file : json.at("files")) files.push_back(from_json(file));
  } catch (const std::exception&) {
    files.clear();
  }
  return files;
}

bool write_memory(const fs::path& path, const std::string& text) {
  try {
    fs::create_directories(path.parent_path());
    base::write_file_atomically(path, text);
    return true;
  } catch (const std::exception&) {  // read-only, full, not ours
    return false;
  }
}

bool is_settled(const FileIdentity& identity) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count() - identity.modified_ns >
         kSettledNs;
}

// The same file, perhaps as another machine sees it: there its device has another number.
bool is_same_but_for_device(FileIdentity a, const FileIdentity& b) {
  a.device = b.device;
  return a == b;
}

}  // namespace

FileIdentity identity_of(const fs::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0)
    throw base::UserError("cannot read {}: {}", file.string(), std::strerror(errno));
  return {.bytes = status.st_size,
          .modified_ns = status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec,
          .inode = static_cast<int64_t>(status.st_ino),
          .device = static_cast<int64_t>(status.st_dev)};
}

CheckMemory::CheckMemory(const fs::path& folder) : folder_(folder) {
  for (const fs::path& place : places(folder, Purpose::read))
    for (CheckedFile& file : read_memory(place)) files_.push_back(std::move(file));
}

const CheckedFile* CheckMemory::find(const std::string& name, const FileIdentity& identity,
                                     const std::string& checksums) const {
  const auto found = std::ranges::find_if(files_, [&](const CheckedFile& file) {
    return file.name == name && file.identity == identity && file.checksums == checksums;
  });
  return found == files_.end() ? nullptr : &*found;
}

void CheckMemory::remember(std::vector<CheckedFile> files) {
  std::erase_if(files, [](const CheckedFile& file) { return !is_settled(file.identity); });
  for (const CheckedFile& fresh : files)
    std::erase_if(files_, [&](const CheckedFile& old) {
      return old.name == fresh.name &&
             (old.identity.device == fresh.identity.device || old.checksums != fresh.checksums ||
              !is_same_but_for_device(old.identity, fresh.identity));
    });
  if (files.empty()) return;
  std::ranges::move(files, std::back_inserter(files_));
  Json json = {{"format_version", 1}, {"files", Json::array()}};
  for (const CheckedFile& file : files_) json["files"].push_back(to_json(file));
  for (const fs::path& place : places(folder_, Purpose::write))
    if (write_memory(place, json.dump(2) + "\n")) return;
}

std::unique_ptr<base::FolderLock> lock_checks_of(const fs::path& folder) {
  const auto own = own_temporary_folder(true);
  if (!own) return nullptr;
  const fs::path lock = *own / (key_of(folder) + ".lock");
  std::error_code error;
  fs::create_directory(lock, error);
  try {
    return std::make_unique<base::FolderLock>(lock);
  } catch (const base::UserError&) {
    return nullptr;
  }
}

}  // namespace ee::checkpoint
