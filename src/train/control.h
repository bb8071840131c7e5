// What the ranks of a run tell each other between two steps.
#pragma once

#include <cstdint>
#include <vector>

#include "ee/train/engine.h"

namespace ee::train {

// What all ranks do before the next step.
struct Control {
  int signal = 0;  // stop because of it, after the rest has been done
  bool end = false;
  bool evaluate = false;
  bool save = false;
};

// The results of a step, as far as stages have added theirs.
struct Report {
  Report() = default;
  Report(size_t count, const Stage& stage, const StepResult& result);

  int64_t step = 0;  // number of steps done; 0: nothing to report yet
  double learning_rate = 0;
  int64_t learned_tokens = 0, empty_steps = 0;  // the same on every stage
  std::vector<double> losses, gradient_norms;   // one each of Job::loss_names(); 0 where not yet known
};

StepResult to_result(const Report& report);

// Rank 0's `control` goes to all ranks of the first stage and from stage to stage, in front of the next
// step's hidden states; with it go the results of the last step: each stage adds its own to `report`, so the
// last one's is complete. A stage waits for the one before, which it must do for the next micro-batch anyway.
Control exchange_control(Engine& engine, const Control& control, Report& report);

}  // namespace ee::train
