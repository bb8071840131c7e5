#include "check_integrity.h"

#include <algorithm>

#include "ee/base/error.h"
#include "ee/base/hash.h"
#include "ee/base/text.h"
#include "folder_parts.h"

namespace ee::checkpoint {
namespace fs = std::filesystem;
using base::UserError;

namespace {

constexpr size_t kNamed = 3;  // tensors in a message

enum class Part { backbone, exits, gates };

// One file, and what its tensors are to be compared with.
struct FileCheck {
  Part part;
  fs::path path;
  std::vector<NamedTensor> tensors;
  const TensorChecksums* expected;
  CheckedFile result = {};
  bool remembered = false;
};

// Empty for a tensor that has none.
std::string expected_of(const FileCheck& file, const NamedTensor& tensor) {
  const auto found = file.expected->find(tensor.name);
  return found == file.expected->end() ? std::string() : found->second;
}

std::string digest_of(const FileCheck& file) {
  base::Hasher hasher;
  for (const NamedTensor& tensor : file.tensors)
    hasher.update(fmt::format("{} {}\n", tensor.name, expected_of(file, tensor)));
  return hasher.digest();
}

// Of each file the tensors that belong to the model: others in it are as nothing.
void list_files(const TensorFiles& files, Part part, const TensorChecksums& expected,
                std::vector<FileCheck>& checks) {
  const size_t first = checks.size();
  for (const auto& file : files.files())
    checks.push_back({.part = part, .path = file.path(), .tensors = {}, .expected = &expected});
  for (const auto& [name, file] : files.names())
    checks[first + file].tensors.push_back({name, &files.at(name)});
  for (size_t i = first; i < checks.size(); ++i)
    checks[i].result = {.name = checks[i].path.filename().string(),
                        .identity = identity_of(checks[i].path),
                        .checksums = digest_of(checks[i]),
                        .differ = {}};
}

std::vector<FileCheck> list_checks(const config::Checksums& checksums, const FolderTensors& tensors) {
  std::vector<FileCheck> checks;
  list_files(*tensors.backbone, Part::backbone, checksums.backbone, checks);
  list_files(*tensors.exits, Part::exits, checksums.exits, checks);
  if (tensors.gates) list_files(*tensors.gates, Part::gates, checksums.gates, checks);
  return checks;
}

// A tensor that has a checksum and is in no file at all.
void check_none_is_missing(const fs::path& folder, const TensorFiles& files,
                           const TensorChecksums& expected) {
  for (const auto& [name, checksum] : expected)
    if (!files.contains(name))
      throw UserError("{} has a checksum of tensor {}, but {} has no such tensor",
                      (folder / kExitsConfigFile).string(), name, files.files().front().path().string());
}

void recall(const fs::path& folder, std::vector<FileCheck>& checks) {
  const CheckMemory memory(folder);
  for (FileCheck& check : checks) {
    const CheckedFile* known = memory.find(check.result.name, check.result.identity, check.result.checksums);
    check.remembered = known != nullptr;
    if (known) check.result.differ = known->differ;
  }
}

bool all_remembered(const std::vector<FileCheck>& checks) {
  return std::ranges::all_of(checks, &FileCheck::remembered);
}

// Reads the files that are not remembered, and remembers them.
void read_files(const fs::path& folder, std::vector<FileCheck>& checks) {
  std::vector<CheckedFile> results;
  for (FileCheck& check : checks) {
    if (check.remembered) continue;
    const TensorChecksums found = compute_checksums(check.tensors);
    check.result.differ.clear();
    for (const NamedTensor& tensor : check.tensors)
      if (found.at(tensor.name) != expected_of(check, tensor)) check.result.differ.push_back(tensor.name);
    if (identity_of(check.path) == check.result.identity) results.push_back(check.result);
  }
  CheckMemory(folder).remember(std::move(results));
}

struct Differing {
  std::vector<std::string> tensors;  // "NAME in FILE"
  size_t total = 0;

  std::string list() const {
    const auto shown = std::min(kNamed, tensors.size());
    const std::string first = base::join({tensors.begin(), tensors.begin() + static_cast<long>(shown)}, ", ");
    return tensors.size() > shown ? fmt::format("{} and {} more", first, tensors.size() - shown) : first;
  }
};

Differing differing(const std::vector<FileCheck>& checks, Part part) {
  Differing result;
  for (const FileCheck& check : checks) {
    if (check.part != part) continue;
    result.total += check.tensors.size();
    for (const std::string& name : check.result.differ)
      result.tensors.push_back(fmt::format("{} in {}", name, check.path.string()));
  }
  return result;
}

const char* advice(Part part) {
  switch (part) {
    case Part::backbone:
      return "copy the file again from where it came or, if it was changed on purpose, attach new exits with "
             "ee-convert attach";
    case Part::exits:
      return "restore the file from a copy, or make the exits again (ee-convert attach, ee-tune)";
    case Part::gates:
      return "restore the file, or remove it and fit new gates with ee-tune calibrate --gate";
  }
  EE_CHECK(false, "part {}", static_cast<int>(part));
}

void report(const fs::path& folder, const std::vector<FileCheck>& checks) {
  for (const Part part : {Part::backbone, Part::exits, Part::gates}) {
    const Differing found = differing(checks, part);
    if (found.tensors.empty()) continue;
    const std::string known =
        all_remembered(checks)
            ? " (found when these files were read before; ee-convert verify reads them again)"
            : "";
    if (part == Part::backbone && 2 * found.tensors.size() > found.total)
      throw UserError(
          "the exits in {} were made for another backbone: {} of its {} tensors are not those that {} has "
          "checksums of ({}){}; restore the backbone's files, or attach new exits with ee-convert attach",
          folder.string(), found.tensors.size(), found.total, kExitsConfigFile, found.list(), known);
    throw UserError("damaged or altered: {} {} not what {} has {} of{}; {}", found.list(),
                    found.tensors.size() == 1 ? "is" : "are", kExitsConfigFile,
                    found.tensors.size() == 1 ? "a checksum" : "checksums", known, advice(part));
  }
}

}  // namespace

Integrity check_integrity(const fs::path& folder, const config::Checksums& checksums,
                          const FolderTensors& tensors, Check check) {
  if (check == Check::never) return Integrity::not_checked;
  check_none_is_missing(folder, *tensors.backbone, checksums.backbone);
  check_none_is_missing(folder, *tensors.exits, checksums.exits);
  if (tensors.gates) check_none_is_missing(folder, *tensors.gates, checksums.gates);
  std::vector<FileCheck> checks = list_checks(checksums, tensors);
  std::unique_ptr<base::FolderLock> lock;
  if (check == Check::unless_remembered) {
    recall(folder, checks);
    if (!all_remembered(checks)) {
      lock = lock_checks_of(folder);
      recall(folder, checks);
    }
  }
  const bool remembered = all_remembered(checks);
  if (!remembered) read_files(folder, checks);
  report(folder, checks);
  return remembered ? Integrity::remembered : Integrity::checked;
}

ReadFiles read_checksums(const TensorFiles& files) {
  std::vector<FileIdentity> before;
  for (const auto& file : files.files()) before.push_back(identity_of(file.path()));
  ReadFiles read{.checksums = compute_checksums(files), .files = {}};
  std::vector<FileCheck> checks;
  list_files(files, Part::backbone, read.checksums, checks);
  for (size_t i = 0; i < checks.size(); ++i)
    if (checks[i].result.identity == before[i]) read.files.push_back(checks[i].result);
  return read;
}

void remember_read(const fs::path& folder, std::vector<CheckedFile> read) {
  std::erase_if(read,
                [&](const CheckedFile& file) { return identity_of(folder / file.name) != file.identity; });
  CheckMemory(folder).remember(std::move(read));
}

}  // namespace ee::checkpoint
