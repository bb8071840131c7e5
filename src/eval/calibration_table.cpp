#include <fmt/format.h>

#include "ee/eval/calibrate.h"

namespace ee::eval {

namespace {

std::string percent(double share) { return fmt::format("{:.1f}%", 100 * share); }

std::string calibration_rows(const Calibration& calibration) {
  std::string text =
      fmt::format("{:>6}  {:>10}  {:>15}  {:>24}\n", "exit", "agreement", "temperature", "calibration error");
  for (const ExitCalibration& exit : calibration.exits) {
    text += fmt::format("{:>6}  {:>10}  {:>6.2f} -> {:>5.2f}  {:>14.4f} -> {:>6.4f}\n", exit.layer,
                        percent(exit.agreement), exit.temperature_before, exit.temperature, exit.error_before,
                        exit.error);
  }
  return text;
}

// Each exit by itself: what its score is worth, by policy.
std::string selection_rows(const Calibration& calibration) {
  std::string text = fmt::format("{:>6}  {:<11} {:>6}", "exit", "alone, by", "area");
  for (const double agreement : calibration.agreements) {
    text += fmt::format("  {:>12}", fmt::format("leave at {:g}", agreement));
  }
  for (const ExitCalibration& exit : calibration.exits) {
    for (size_t policy = 0; policy < exit.selections.size(); ++policy) {
      const Selection& chosen = exit.selections[policy];
      text += fmt::format("\n{:>6}  {:<11} {:>6.4f}", exit.layer, policy == 0 ? "confidence" : "gate",
                          chosen.area);
      for (const double share : chosen.shares) {
        text += fmt::format("  {:>12}", percent(share));
      }
    }
  }
  return text + "\n";
}

std::string level_rows(const LevelResult& result, size_t exits) {
  const config::QualityLevel& level = result.level;
  const Outcome& outcome = result.outcome;
  std::string text = fmt::format(
      "quality {:g}, policy {}: {} leave early, {} of all tokens agree (at least {} with confidence {:g}), "
      "{:.2f} "
      "of {} exits' output embeddings evaluated a token\n",
      level.agreement, config::name_of(level.policy), percent(outcome.leaving()), percent(1 - outcome.risk()),
      percent(1 - result.bound), level.confidence, outcome.heads, exits);
  if (outcome.leaving() == 0.0) {
    text += "  no exit makes a token: the text is too short, or the exits too weak, for this level\n";
  }
  for (size_t e = 0; e < level.exits.size(); ++e) {
    const config::ExitRule& rule = level.exits[e];
    text += fmt::format("{:>6}  ", rule.layer);
    text += rule.threshold < 1.0 ? fmt::format("threshold {:.4f}", rule.threshold) : "never           ";
    text += rule.ask > 0.0 ? fmt::format("  asked from {:.4f}", rule.ask) : "";
    text += fmt::format("  {:>6} leave", percent(outcome.leave[e]));
    text += outcome.leave[e] > 0.0
                ? fmt::format(", {} of them agree\n", percent(outcome.leave_agree[e] / outcome.leave[e]))
                : "\n";
  }
  return text;
}

}  // namespace

std::string to_table(const Calibration& calibration) {
  std::string text = calibration_rows(calibration) + "\n" + selection_rows(calibration) + "\n";
  for (const LevelResult& result : calibration.levels) {
    text += level_rows(result, calibration.exits.size()) + "\n";
  }
  text += calibration.fit_tokens > 0 ? fmt::format("fitted on {} tokens, ", calibration.fit_tokens) : "";
  return text + fmt::format("measured on {} other tokens in {} sequences\n", calibration.test_tokens,
                            calibration.test_sequences);
}

}  // namespace ee::eval
