// The folders of a run's training checkpoints, in ROOT:
//   step-N                            a checkpoint
//   .step-N.new                       a complete one that is about to take step-N's place
//   .step-N.old                       the one whose place is being taken
//   .step-N.deleted, .*.partial-PID   on their way out, or never finished: nothing of value
// A run may be killed between any two renames: of the first three one is always complete.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "folder_parts.h"

namespace ee::checkpoint {

inline constexpr const char* kOptimizerFile = "optimizer.safetensors";
inline constexpr const char* kStateFile = "state.json";

struct StepFolder {
  int64_t step;
  std::filesystem::path path;
};

std::filesystem::path step_folder(const std::filesystem::path& root, int64_t step);

// Complete or not, newest first: step-N only, or whatever may hold a checkpoint, best first.
std::vector<StepFolder> step_folders(const std::filesystem::path& root);
std::vector<StepFolder> checkpoint_candidates(const std::filesystem::path& root);

// Written last, when the folder holds everything else.
void write_manifest(const std::filesystem::path& folder);

// UserError: no manifest, a file is missing or (every byte is read) not what the manifest says.
void check_complete(const std::filesystem::path& folder);

// The same by the files' sizes, which costs nothing.
bool looks_complete(const std::filesystem::path& folder);

// Puts a folder that `write` fills in the place of a step's, which exists; at any moment one of the two is
// there.
void replace_step(const std::filesystem::path& root, int64_t step,
                  const std::function<void(const std::filesystem::path& fresh)>& write);

// Finishes or takes back what a run was killed in, and clears its remains away. For the only writer of
// `root`.
void settle(const std::filesystem::path& root);

// Under another name first, so that no half of a folder is ever taken for a checkpoint.
void delete_step(const std::filesystem::path& folder);

}  // namespace ee::checkpoint
