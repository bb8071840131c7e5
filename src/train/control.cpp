#include "control.h"

#include <algorithm>

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

Report::Report(size_t exits, const Stage& stage, const StepResult& result)
    : learning_rate(result.learning_rate), losses(exits, 0.0), gradient_norms(exits, 0.0) {
  const auto first = static_cast<std::ptrdiff_t>(stage.first_exit);
  std::copy(result.losses.begin(), result.losses.end(), losses.begin() + first);
  std::copy(result.gradient_norms.begin(), result.gradient_norms.end(), gradient_norms.begin() + first);
}

StepResult to_result(const Report& report) {
  return {.losses = report.losses,
          .gradient_norms = report.gradient_norms,
          .learning_rate = report.learning_rate};
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
  for (size_t i = 0; i < exits; ++i) {  // each exit's results are 0 on all stages but its own
    report.losses[i] += numbers[kControlNumbers + i];
    report.gradient_norms[i] += numbers[kControlNumbers + exits + i];
    numbers[kControlNumbers + i] = report.losses[i];
    numbers[kControlNumbers + exits + i] = report.gradient_norms[i];
  }
  if (!ranks->grid.is_last_stage()) engine.link()->send_numbers(numbers);
  return to_control(numbers);
}

}  // namespace ee::train
