// What changes from step to step: the learning rate and the exits' loss weights. Pure functions of the step.
#pragma once

#include <cstdint>

#include "ee/config/tune_options.h"

namespace ee::optim {

// Steps count from 0 to steps - 1. Warm-up: step k of w has lr * (k + 1) / w. Then from lr towards min_lr,
// which would be reached at step `steps`.
class LearningRate {
 public:
  LearningRate(const config::OptimizerOptions& optimizer, const config::ScheduleOptions& schedule,
               int64_t steps);

  double at(int64_t step) const;
  int64_t warmup_steps() const { return warmup_; }

 private:
  double peak_, min_;
  config::DecayShape decay_;
  int64_t steps_, warmup_;
};

// The factor on all exits' loss weights at `step` of `steps`: from `initial` at the first step of the warm-up
// to 1 behind it; from 1 to `final` at the last step of the cool-down (EE-LLM section 3.3).
double exit_weight_factor(const config::WeightScheduleOptions& options, int64_t step, int64_t steps);

}  // namespace ee::optim
