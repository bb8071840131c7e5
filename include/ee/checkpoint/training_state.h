// Checkpoints of a tuning run, to resume from: ROOT/step-N/ with
//   exits.safetensors      f32 master weights of all that is trained
//   optimizer.safetensors  f32 moments, named after their parameters
//   state.json             TrainingState
//   manifest.json          byte count and XXH3 checksum of each file above; written last
// A folder is filled under a temporary name, synced and renamed. A run that is killed at any moment leaves
// complete step-N folders and perhaps hidden ones: among them is a complete one wherever step-N itself was
// about to be replaced (state_folders.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "ee/checkpoint/tensor_files.h"
#include "ee/checkpoint/tensor_source.h"

namespace ee::checkpoint {

struct TrainingState {
  int64_t step = 0;                       // optimizer steps that are done
  int64_t samples_consumed = 0;           // training sequences that are done: the data cursor
  std::string rng;                        // whatever the trainer needs to continue its random numbers
  std::string config_echo;                // the options of the run, as JSON text
  std::string model_fingerprint;          // of the backbone
  std::optional<double> metric;           // held-out loss at this step, if evaluated: what keep_best goes by
  std::optional<double> best_metric;      // the lowest one of the run so far
  std::map<std::string, double> metrics;  // anything else that must survive a stop; NaN and inf are left out

  bool operator==(const TrainingState&) const = default;
};

// A complete checkpoint that has been opened: read tensors, or slices of them, as they are needed.
struct TrainingCheckpoint {
  std::filesystem::path path;
  TrainingState state;
  TensorFiles exits, optimizer;  // f32
};

// What to write; sources are asked in order, those of `exits` first, for f32 tensors.
struct TrainingTensors {
  TensorSources exits, optimizer;
};

// Writes root/step-<state.step> and returns its path when everything is on the disk. A folder of the same
// step is replaced. UserError (disk full, ...) leaves what was there before.
std::filesystem::path save_training_state(const std::filesystem::path& root, const TrainingState& state,
                                          const TrainingTensors& tensors);

// The newest complete checkpoint in `root`, or nothing; it may be in a hidden folder that a killed run was
// about to rename. Folders without a manifest, with missing files or wrong checksums are passed over after
// `warn` was told which and why. Changes nothing, so that all ranks of a run may look at once.
std::optional<std::filesystem::path> find_latest_training_state(
    const std::filesystem::path& root, const std::function<void(const std::string&)>& warn);

// UserError: not a complete checkpoint (files missing, truncated, altered).
TrainingCheckpoint open_training_state(const std::filesystem::path& folder);

struct PruneOptions {
  int64_t saved_step = 0;  // the checkpoint that was written just now; later ones are not touched
  int64_t keep_last = 1;   // newest ones
  bool keep_best = false;  // also the one with the lowest metric
};

// Removes all other checkpoints. Those with a file missing or of another size than the manifest says count
// for nothing and go; no other byte than state.json's is read. Also finishes what a killed run began, and
// removes what it left half-written. To be called by the only writer of `root`.
void prune_training_states(const std::filesystem::path& root, const PruneOptions& options);

}  // namespace ee::checkpoint
