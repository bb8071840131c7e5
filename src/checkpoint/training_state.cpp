#include "ee/checkpoint/training_state.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/hash.h"
#include "ee/checkpoint/tensor_files.h"
#include "folder_parts.h"
#include "state_json.h"

namespace ee::checkpoint {
namespace fs = std::filesystem;
using base::UserError;
using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kPrefix = "step-";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kStateFile = "state.json";
constexpr const char* kManifestFile = "manifest.json";
constexpr const char* kFiles[] = {kExitsFile, kOptimizerFile, kStateFile};

std::string folder_name(int64_t step) { return fmt::format("{}{}", kPrefix, step); }

std::optional<int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [stopped, error] = std::from_chars(name.data() + std::string_view(kPrefix).size(), end, step);
  return error == std::errc() && stopped == end && step >= 0 ? std::optional(step) : std::nullopt;
}

// Complete or not, newest first.
std::vector<std::pair<int64_t, fs::path>> step_folders(const fs::path& root) {
  std::vector<std::pair<int64_t, fs::path>> folders;
  if (!fs::is_directory(root)) return folders;
  for (const auto& entry : fs::directory_iterator(root))
    if (const auto step = step_of(entry.path()); step && entry.is_directory())
      folders.emplace_back(*step, entry.path());
  std::ranges::sort(folders, std::greater{});
  return folders;
}

void write_text(const fs::path& path, const std::string& text) {
  base::OutputFile out(path);
  out.write(text);
  out.close();
}

void write_tensors(const fs::path& path, const TensorSources& sources) {
  std::vector<format::TensorToWrite> list;
  for (const auto& source : sources) list.push_back(tensor_to_write(source, at::kFloat));
  format::write_safetensors(path, list);
}

TensorFiles open_tensors(const fs::path& path) {
  TensorFiles files = TensorFiles::open_file(path);
  for (const auto& [name, file] : files.names())
    if (files.at(name).dtype != format::DType::f32)
      throw UserError("tensor {} in {} has dtype {}, expected F32", name, path.string(),
                      format::to_string(files.at(name).dtype));
  return files;
}

Json describe_file(const fs::path& path) {
  const base::MappedFile file(path);
  return {{"bytes", file.bytes().size()}, {"xxh3", base::hash_bytes(file.bytes())}};
}

// Everything but the manifest must be what the manifest, written last, says.
void check_complete(const fs::path& folder) {
  if (!fs::exists(folder / kManifestFile)) throw UserError("{} has no {}", folder.string(), kManifestFile);
  const Json manifest = Json::parse(base::read_text_file(folder / kManifestFile), nullptr, false);
  const auto files = manifest.is_object() ? manifest.find("files") : manifest.end();
  if (!manifest.is_object() || files == manifest.end() || !files->is_object())
    throw UserError("{} is no manifest", (folder / kManifestFile).string());
  for (const char* name : kFiles) {
    if (!files->contains(name))
      throw UserError("{} does not list {}", (folder / kManifestFile).string(), name);
    if (!fs::exists(folder / name)) throw UserError("{} is missing", (folder / name).string());
    if (describe_file(folder / name) != files->at(name))
      throw UserError("{} is not what {} says: truncated or altered", (folder / name).string(),
                      kManifestFile);
  }
}

void fill(const fs::path& folder, const TrainingState& state, const TrainingTensors& tensors) {
  write_tensors(folder / kExitsFile, tensors.exits);
  write_tensors(folder / kOptimizerFile, tensors.optimizer);
  write_text(folder / kStateFile, write_state(state));
  Json manifest = {{"format_version", 1}, {"files", Json::object()}};
  for (const char* name : kFiles) manifest["files"][name] = describe_file(folder / name);
  write_text(folder / kManifestFile, manifest.dump(2) + "\n");
}

void move_folder(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) throw UserError("cannot rename {} to {}: {}", from.string(), to.string(), error.message());
}

}  // namespace

fs::path save_training_state(const fs::path& root, const TrainingState& state,
                             const TrainingTensors& tensors) {
  const std::string name = folder_name(state.step);
  const fs::path target = root / name;
  if (!fs::exists(target)) {
    base::AtomicDirectory output(target);
    fill(output.path(), state, tensors);
    output.commit();
    return target;
  }
  // A run that resumed from an earlier step comes by again: the old folder goes when the new one is complete.
  const fs::path fresh = root / ("." + name + ".new"), old = root / ("." + name + ".old");
  fs::remove_all(fresh);
  fs::remove_all(old);
  base::AtomicDirectory output(fresh);
  fill(output.path(), state, tensors);
  output.commit();
  move_folder(target, old);
  move_folder(fresh, target);
  fs::remove_all(old);
  return target;
}

std::optional<fs::path> find_latest_training_state(const fs::path& root,
                                                   const std::function<void(const std::string&)>& warn) {
  for (const auto& [step, folder] : step_folders(root)) {
    try {
      check_complete(folder);
      return folder;
    } catch (const UserError& error) {
      warn(fmt::format("passing over checkpoint {}: {}", folder.string(), error.what()));
    }
  }
  return std::nullopt;
}

TrainingCheckpoint open_training_state(const fs::path& folder) {
  check_complete(folder);
  return {.path = folder,
          .state = read_state(folder / kStateFile),
          .exits = open_tensors(folder / kExitsFile),
          .optimizer = open_tensors(folder / kOptimizerFile)};
}

namespace {

// The complete folder with the lowest metric; the newest of equal ones.
std::optional<int64_t> best_step(const std::vector<std::pair<int64_t, fs::path>>& newest_first) {
  std::optional<int64_t> best;
  double best_metric = INFINITY;
  for (const auto& [step, folder] : newest_first) {
    try {
      check_complete(folder);
      const auto metric = read_state(folder / kStateFile).metric;
      if (metric && *metric < best_metric) best_metric = *metric, best = step;
    } catch (const UserError&) {  // an incomplete folder is never the best one
    }
  }
  return best;
}

}  // namespace

void prune_training_states(const fs::path& root, int64_t keep_last, bool keep_best) {
  if (!fs::is_directory(root)) return;
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(root))
    if (entry.path().filename().string().starts_with(std::string(".") + kPrefix))
      leftovers.push_back(entry.path());
  for (const auto& path : leftovers) fs::remove_all(path);

  const auto folders = step_folders(root);
  const auto best = keep_best ? best_step(folders) : std::nullopt;
  for (size_t i = static_cast<size_t>(std::max<int64_t>(keep_last, 0)); i < folders.size(); ++i)
    if (folders[i].first != best) fs::remove_all(folders[i].second);
}

}  // namespace ee::checkpoint
