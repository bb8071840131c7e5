#include "control.h"

#include <algorithm>
#include <cmath>

namespace ee::train {

namespace {

std::vector<double> to_numbers(const Control& control) {
  return {static_cast<double>(control.signal), static_cast<double>(control.end),
          static_cast<double>(control.evaluate), static_cast<double>(control.save)};
}

Control to_control(const std::vector<double>& numbers) {
  return {.signal = static_cast<int>(numbers[0]),
          .end = numbers[1] != 0,
          .evaluate = numbers[2] != 0,
          .save = numbers[3] != 0};
}

constexpr size_t kControlNumbers = 4;

}  // namespace

Report::Report(size_t count, const Stage& stage, const StepResult& result)
    : learning_rate(result.learning_rate),
      learned_tokens(result.learned_tokens),
      empty_steps(result.empty_steps),
      losses(count, 0.0),
      gradient_norms(count, 0.0) {
  const auto first = static_cast<std::ptrdiff_t>(stage.first_exit);
  std::copy_n(result.losses.begin(), stage.exit_count, losses.begin() + first);
  std::copy_n(result.gradient_norms.begin(), stage.exit_count, gradient_norms.begin() + first);
  if (result.losses.size() == stage.exit_count) return;
  losses.back() = result.losses.back();
  gradient_norms.back() = result.gradient_norms.back();
}

StepResult to_result(const Report& report) {
  return {.losses = report.losses,
          .gradient_norms = report.gradient_norms,
          .learning_rate = report.learning_rate,
          .learned_tokens = report.learned_tokens,
          .empty_steps = report.empty_steps};
}

Control exchange_control(Engine& engine, const Control& control, Report& report) {
  const parallel::Ranks* ranks = engine.ranks();
  if (!ranks) return control;
  const size_t exits = report.losses.size();
  std::vector<double> numbers;  // control, then losses and norms of all exits
  if (ranks->grid.is_first_stage()) {
    numbers = parallel::gather_numbers(ranks->stage, to_numbers(control), ranks->device).front();
    numbers.resize(kControlNumbers + 2 * exits);
  } else {
    numbers = engine.link()->receive_numbers(kControlNumbers + 2 * exits);
  }
  for (size_t i = 0; i < exits;
       ++i) {  // results are 0 on all stages but their own; the backbone's norm has parts
    report.losses[i] += numbers[kControlNumbers + i];
    report.gradient_norms[i] = std::hypot(report.gradient_norms[i], numbers[kControlNumbers + exits + i]);
    numbers[kControlNumbers + i] = report.losses[i];
    numbers[kControlNumbers + exits + i] = report.gradient_norms[i];
  }
  if (!ranks->grid.is_last_stage()) engine.link()->send_numbers(numbers);
  return to_control(numbers);
}

}  // namespace ee::train
