// The run: steps, evaluations, checkpoints, metrics, and the model folder at the end.
#pragma once

#include <string>

#include "ee/base/program.h"
#include "ee/train/job.h"

namespace ee::train {

// Runs `job` to its end and writes options.output, a model folder with all of the model's exits (those that
// were not trained as they were). Returns the exit code: 0, or stop.exit_code() after a signal, when a
// checkpoint of the last finished step has been written.
//
// `resume`: "none" starts over (UserError when there are checkpoints of an earlier run); "auto" continues
// from the newest complete checkpoint, or starts when there is none; anything else is the path of a
// checkpoint. With the same number of threads a resumed run ends with the same bits as one that was never
// stopped. UserError: the checkpoint belongs to another model, other text or other options.
int run_job(const Job& job, const std::string& resume, const base::StopSignal& stop);

}  // namespace ee::train
