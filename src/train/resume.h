// Between a running engine and a checkpoint on disk.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ee/checkpoint/training_state.h"
#include "ee/optim/adamw.h"
#include "ee/train/job.h"

namespace ee::train {

using Warn = std::function<void(const std::string&)>;

// The checkpoint that `resume` ("none", "auto" or a path) means, checked against `job`; nothing: start from
// the beginning. UserErrors as of run_job.
std::optional<checkpoint::TrainingCheckpoint> find_checkpoint(const Job& job, const std::string& resume,
                                                              const Warn& warn);

// Everything of a state that does not change from step to step.
checkpoint::TrainingState describe_run(const Job& job);

// Masters and moments as named tensors that alias those of `groups`.
checkpoint::TrainingCheckpoint collect(const std::vector<optim::ParameterGroup>& groups,
                                       checkpoint::TrainingState state);

// Copies a checkpoint's tensors into `groups`. UserError: missing, superfluous or misshaped ones.
void restore(const checkpoint::TrainingCheckpoint& checkpoint, std::vector<optim::ParameterGroup>& groups);

}  // namespace ee::train
