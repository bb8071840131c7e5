#include "ee/checkpoint/training_state.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/checkpoint/tensor_files.h"
#include "folder_parts.h"
#include "state_folders.h"
#include "state_json.h"

namespace ee::checkpoint {
namespace fs = std::filesystem;
using base::UserError;

namespace {

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

void fill(const fs::path& folder, const TrainingState& state, const TrainingTensors& tensors) {
  write_tensors(folder / kExitsFile, tensors.exits);
  write_tensors(folder / kOptimizerFile, tensors.optimizer);
  write_text(folder / kStateFile, write_state(state));
  write_manifest(folder);
}

}  // namespace

fs::path save_training_state(const fs::path& root, const TrainingState& state,
                             const TrainingTensors& tensors) {
  const auto write = [&](const fs::path& folder) { fill(folder, state, tensors); };
  const fs::path target = step_folder(root, state.step);
  settle(root);
  if (fs::exists(target)) {  // a run that resumed from an earlier step comes by again
    replace_step(root, state.step, write);
    return target;
  }
  base::AtomicDirectory output(target);
  write(output.path());
  output.commit();
  return target;
}

std::optional<fs::path> find_latest_training_state(const fs::path& root,
                                                   const std::function<void(const std::string&)>& warn) {
  for (const auto& [step, folder] : checkpoint_candidates(root)) {
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

// The one with the lowest metric; the newest of equal ones.
std::optional<int64_t> best_step(const std::vector<StepFolder>& newest_first) {
  std::optional<int64_t> best;
  double best_metric = INFINITY;
  for (const auto& [step, folder] : newest_first) {
    try {
      const auto metric = read_state(folder / kStateFile).metric;
      if (metric && *metric < best_metric) best_metric = *metric, best = step;
    } catch (const UserError&) {  // a damaged one is never the best
    }
  }
  return best;
}

}  // namespace

void prune_training_states(const fs::path& root, const PruneOptions& options) {
  if (!fs::is_directory(root)) return;
  settle(root);
  std::vector<StepFolder> folders = step_folders(root);
  std::erase_if(folders, [&](const auto& folder) { return folder.step > options.saved_step; });
  std::vector<StepFolder> complete;
  std::ranges::copy_if(folders, std::back_inserter(complete), looks_complete, &StepFolder::path);
  std::set<int64_t> kept;
  for (const auto& folder : complete)
    if (kept.size() < static_cast<size_t>(options.keep_last)) kept.insert(folder.step);
  if (const auto best = options.keep_best ? best_step(complete) : std::nullopt) kept.insert(*best);
  for (const auto& folder : folders)
    if (!kept.empty() && !kept.contains(folder.step)) delete_step(folder.path);
}

}  // namespace ee::checkpoint
