// Which checkpoint a run goes on from, and whether it belongs to the run.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "ee/checkpoint/training_state.h"
#include "ee/train/job.h"

namespace ee::train {

using Warn = std::function<void(const std::string&)>;

// The checkpoint that `resume` means, checked against `job`; nothing: start from the beginning.
//   none  start over; UserError when there are checkpoints of an earlier run
//   auto  the newest complete one, if there is one
//   else  the path of a checkpoint
// UserError: the checkpoint belongs to another model, other text or other options. The grid may be another
// one.
std::optional<checkpoint::TrainingCheckpoint> find_checkpoint(const Job& job, const std::string& resume,
                                                              const Warn& warn);

// Everything of a state that does not change from step to step.
checkpoint::TrainingState describe_run(const Job& job);

}  // namespace ee::train
