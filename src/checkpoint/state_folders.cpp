#include "state_folders.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/hash.h"

namespace ee::checkpoint {
namespace fs = std::filesystem;
using base::UserError;
using Json = nlohmann::ordered_json;

namespace {

constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kNew = ".new", kOld = ".old", kDeleted = ".deleted", kPartial = ".partial-";
constexpr const char* kManifestFile = "manifest.json";
constexpr const char* kFiles[] = {kExitsFile, kOptimizerFile, kStateFile};

// "step-12", behind a dot and in front of `ending` if there is one.
std::string name_of(int64_t step, std::string_view ending = "") {
  return fmt::format("{}{}{}{}", ending.empty() ? "" : ".", kPrefix, step, ending);
}

std::optional<int64_t> step_of(std::string_view name, std::string_view ending) {
  const std::string_view front = ending.empty() ? "" : ".";
  if (!name.starts_with(front) || !name.ends_with(ending)) return std::nullopt;
  name = name.substr(front.size(), name.size() - front.size() - ending.size());
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [stopped, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return error == std::errc() && stopped == end && step >= 0 ? std::optional(step) : std::nullopt;
}

std::vector<StepFolder> folders_with(const fs::path& root, std::string_view ending) {
  std::vector<StepFolder> folders;
  if (!fs::is_directory(root)) return folders;
  for (const auto& entry : fs::directory_iterator(root))
    if (const auto step = step_of(entry.path().filename().string(), ending); step && entry.is_directory())
      folders.push_back({*step, entry.path()});
  std::ranges::sort(folders, std::greater{}, &StepFolder::step);
  return folders;
}

void move_folder(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) throw UserError("cannot rename {} to {}: {}", from.string(), to.string(), error.message());
}

Json describe_file(const fs::path& path) {
  const base::MappedFile file(path);
  return {{"bytes", file.bytes().size()}, {"xxh3", base::hash_bytes(file.bytes())}};
}

// Its object "files", which lists all that a checkpoint consists of.
Json read_manifest(const fs::path& folder) {
  const fs::path path = folder / kManifestFile;
  if (!fs::exists(path)) throw UserError("{} has no {}", folder.string(), kManifestFile);
  const Json manifest = Json::parse(base::read_text_file(path), nullptr, false);
  const auto files = manifest.is_object() ? manifest.find("files") : manifest.end();
  if (!manifest.is_object() || files == manifest.end() || !files->is_object())
    throw UserError("{} is no manifest", path.string());
  for (const char* name : kFiles) {
    if (!files->contains(name)) throw UserError("{} does not list {}", path.string(), name);
    if (!fs::exists(folder / name)) throw UserError("{} is missing", (folder / name).string());
  }
  return *files;
}

bool is_complete(const fs::path& folder) {
  try {
    check_complete(folder);
    return true;
  } catch (const UserError&) {
    return false;
  }
}

void delete_if_there(const fs::path& folder) {
  if (fs::exists(folder)) delete_step(folder);
}

// One step that has hidden folders.
void settle_step(const fs::path& root, int64_t step) {
  const fs::path place = step_folder(root, step), fresh = root / name_of(step, kNew),
                 old = root / name_of(step, kOld);
  if (is_complete(fresh)) {
    delete_if_there(place);
    move_folder(fresh, place);
  } else if (!is_complete(place) && is_complete(old)) {
    delete_if_there(place);
    move_folder(old, place);
  }
  delete_if_there(fresh);
  delete_if_there(old);
}

bool is_remains(std::string_view name) {
  const size_t dots = name.find_first_not_of('.');
  return dots > 0 && dots != std::string_view::npos && name.substr(dots).starts_with(kPrefix) &&
         (name.ends_with(kDeleted) || name.find(kPartial) != std::string_view::npos);
}

}  // namespace

fs::path step_folder(const fs::path& root, int64_t step) { return root / name_of(step); }

std::vector<StepFolder> step_folders(const fs::path& root) { return folders_with(root, ""); }

std::vector<StepFolder> checkpoint_candidates(const fs::path& root) {
  std::vector<StepFolder> folders;
  for (const std::string_view ending : {kNew, std::string_view(), kOld})
    std::ranges::move(folders_with(root, ending), std::back_inserter(folders));
  std::ranges::stable_sort(folders, std::greater{}, &StepFolder::step);
  return folders;
}

void write_manifest(const fs::path& folder) {
  Json manifest = {{"format_version", 1}, {"files", Json::object()}};
  for (const char* name : kFiles) manifest["files"][name] = describe_file(folder / name);
  base::OutputFile out(folder / kManifestFile);
  out.write(manifest.dump(2) + "\n");
  out.close();
}

void check_complete(const fs::path& folder) {
  const Json files = read_manifest(folder);
  for (const char* name : kFiles)
    if (describe_file(folder / name) != files.at(name))
      throw UserError("{} is not what {} says: truncated or altered", (folder / name).string(),
                      kManifestFile);
}

bool looks_complete(const fs::path& folder) {
  try {
    const Json files = read_manifest(folder);
    return std::ranges::all_of(kFiles, [&](const char* name) {
      return fs::file_size(folder / name) == files.at(name).at("bytes").get<uintmax_t>();
    });
  } catch (const std::exception&) {  // no manifest, not ours, or gone while we look
    return false;
  }
}

void replace_step(const fs::path& root, int64_t step, const std::function<void(const fs::path&)>& write) {
  const fs::path place = step_folder(root, step), fresh = root / name_of(step, kNew),
                 old = root / name_of(step, kOld);
  base::AtomicDirectory output(fresh);
  write(output.path());
  output.commit();
  move_folder(place, old);
  move_folder(fresh, place);
  delete_step(old);
}

void settle(const fs::path& root) {
  if (!fs::is_directory(root)) return;
  std::set<int64_t> steps;
  for (const std::string_view ending : {kNew, kOld})
    for (const StepFolder& folder : folders_with(root, ending)) steps.insert(folder.step);
  for (const int64_t step : steps) settle_step(root, step);
  std::vector<fs::path> remains;
  for (const auto& entry : fs::directory_iterator(root))
    if (is_remains(entry.path().filename().string())) remains.push_back(entry.path());
  for (const fs::path& path : remains) fs::remove_all(path);
}

void delete_step(const fs::path& folder) {
  const std::string name = folder.filename().string();
  const fs::path passing =
      folder.parent_path() / fmt::format("{}{}{}", name.starts_with('.') ? "" : ".", name, kDeleted);
  fs::remove_all(passing);
  move_folder(folder, passing);
  fs::remove_all(passing);
}

}  // namespace ee::checkpoint
