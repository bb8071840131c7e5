// The run: steps, evaluations, checkpoints, metrics, and the model folder at the end.
#pragma once

#include <optional>

#include "ee/base/program.h"
#include "ee/checkpoint/training_state.h"
#include "ee/comm/launch.h"
#include "ee/train/job.h"

namespace ee::train {

// Runs `job` to its end, from `checkpoint` (resume.h) or from the beginning, and writes options.output, a
// model folder with all of the model's exits (those that were not trained as they were). Returns the exit
// code: 0, or 128 + signal, when a checkpoint of the last finished step has been written. With the same
// number of threads a resumed run ends with the same bits as one that was never stopped.
//
// `launch`: this process among those of the run, each of which calls it with the same job and checkpoint.
// Rank 0 writes; the first rank of the last pipeline stage logs. CommError when a process is lost.
int run_job(const Job& job, const std::optional<checkpoint::TrainingCheckpoint>& checkpoint,
            const base::StopSignal& stop, const comm::LaunchInfo& launch = {});

}  // namespace ee::train
