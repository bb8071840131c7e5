// What checks of a model folder's files have found before: ".ee_checked.json" beside them, or in a cache
// folder where that cannot be written. Losing it, or not finding a place for it, costs another check and
// nothing else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ee/base/file.h"

namespace ee::checkpoint {

// What changes when a file is written to or replaced.
struct FileIdentity {
  int64_t bytes = 0, modified_ns = 0, inode = 0, device = 0;
  bool operator==(const FileIdentity&) const = default;
};

FileIdentity identity_of(const std::filesystem::path& file);  // UserError if there is none

struct CheckedFile {
  std::string name;  // in the folder
  FileIdentity identity;
  std::string checksums;            // digest of those that its tensors were compared with
  std::vector<std::string> differ;  // tensors that are not what their checksums say; empty: it passed
};

class CheckMemory {
 public:
  explicit CheckMemory(const std::filesystem::path& folder);

  // Null: this very file was not compared with these checksums before.
  const CheckedFile* find(const std::string& name, const FileIdentity& identity,
                          const std::string& checksums) const;

  // Replaces what is known of these files. One that was written in the last seconds is left out: its time
  // would not tell another change.
  void remember(std::vector<CheckedFile> files);

 private:
  std::filesystem::path folder_;
  std::vector<CheckedFile> files_;
};

// One process of this user on this machine checks a folder; the others wait here and then find what it found.
// Null where no lock can be made: then each checks for itself.
std::unique_ptr<base::FolderLock> lock_checks_of(const std::filesystem::path& folder);

}  // namespace ee::checkpoint
