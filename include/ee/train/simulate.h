// What a pipeline schedule will bring on a grid, before its processes exist: measured times of this machine's
// layers and exits, put through the event simulator.
#pragma once

#include <string>
#include <vector>

#include "ee/train/job.h"

namespace ee::train {

// Seconds for a micro-batch on one process of this machine, with job.options.threads threads.
struct MeasuredTimes {
  std::vector<double> layers;     // forward; of layers 1..job.depth()
  std::vector<double> exits;      // forward and backward, of each of the run's exits
  double teacher = 0;             // what exits learn from the final layer, made once on each stage with exits
  double optimizer_per_exit = 0;  // a step; the dearest exit's
};

// Runs one micro-batch of the training text through the model, layer by layer: each is read when its turn
// comes, so the memory is one layer's and one exit's whatever the model's size. The fastest of a few
// repetitions. UserError with train.mode all.
MeasuredTimes measure_times(const Job& job);

// Efficiency, tokens/s and a timeline of job.grid with streaming and with a flush after each step.
// Communication between tensor ranks is not in it: their layers take 1 / tensor of the time.
std::string simulate_run(const Job& job, const MeasuredTimes& times);

}  // namespace ee::train
