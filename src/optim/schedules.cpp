#include "ee/optim/schedules.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ee::optim {

namespace {

double half_cosine(double t) { return (1.0 - std::cos(std::numbers::pi * t)) / 2.0; }  // 0 -> 0, 1 -> 1

int64_t share_of(double fraction, int64_t steps) {
  return static_cast<int64_t>(std::llround(fraction * static_cast<double>(steps)));
}

double ratio(int64_t part, int64_t whole) { return static_cast<double>(part) / static_cast<double>(whole); }

}  // namespace

LearningRate::LearningRate(const config::OptimizerOptions& optimizer, const config::ScheduleOptions& schedule,
                           int64_t steps)
    : peak_(optimizer.lr),
      min_(schedule.min_lr),
      decay_(schedule.decay),
      steps_(steps),
      warmup_(schedule.warmup_steps > 0 ? schedule.warmup_steps : share_of(schedule.warmup_fraction, steps)) {
}

double LearningRate::at(int64_t step) const {
  if (step < warmup_) return peak_ * ratio(step + 1, warmup_);
  if (decay_ == config::DecayShape::constant) return peak_;
  const double t = std::min(1.0, ratio(step - warmup_, std::max<int64_t>(steps_ - warmup_, 1)));
  return peak_ + (min_ - peak_) * (decay_ == config::DecayShape::linear ? t : half_cosine(t));
}

double exit_weight_factor(const config::WeightScheduleOptions& options, int64_t step, int64_t steps) {
  if (options.shape == config::WeightShape::constant) return 1.0;
  const auto between = [&](double from, double to, double t) {
    return from + (to - from) * (options.shape == config::WeightShape::linear ? t : half_cosine(t));
  };
  const int64_t warmup = share_of(options.warmup_fraction, steps);
  const int64_t cooldown = share_of(options.cooldown_fraction, steps);
  if (step < warmup) return between(options.initial, 1.0, ratio(step, warmup));
  if (step >= steps - cooldown)
    return between(1.0, options.final, ratio(step - (steps - cooldown) + 1, cooldown));
  return 1.0;
}

}  // namespace ee::optim
