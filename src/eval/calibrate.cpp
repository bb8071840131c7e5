#include "ee/eval/calibrate.h"

#include <algorithm>

#include "agreement.h"
#include "ee/base/error.h"
#include "gate_fit.h"

namespace ee::eval {

namespace {

// Temperatures are one number an exit: more scored tokens than this make no difference.
constexpr int64_t kTemperatureTokens = 4096;

struct Parts {
  int64_t fit, map, test;  // sequences
};

Parts split(size_t sequences) {
  const auto count = static_cast<int64_t>(sequences);
  return {count / 3, count / 6, count - count / 3 - count / 6};
}

Sequences slice(const Sequences& all, int64_t begin, int64_t count) {
  return {all.begin() + begin, all.begin() + begin + count};
}

std::vector<double> temperatures_of(const infer::Model& model) {
  std::vector<double> temperatures;
  for (const exits::ExitHead& exit : model.exits) {
    temperatures.push_back(exit.spec.temperature);
  }
  return temperatures;
}

void fit_temperatures(infer::Model& model, const Sequences& sequences,
                      const std::function<void(int64_t)>& progress) {
  int64_t count = 0;
  for (int64_t tokens = 0; count < std::ssize(sequences) && tokens < kTemperatureTokens; ++count) {
    tokens += scored_tokens(sequences[static_cast<size_t>(count)]);
  }
  const auto curves = read_likelihoods(model, slice(sequences, 0, count), progress);
  for (size_t e = 0; e < curves.size(); ++e) {
    model.exits[e].spec.temperature = best_temperature(curves[e]);
  }
}

void fit_gates(infer::Model& model, const Sequences& sequences,
               const std::function<void(int64_t)>& progress) {
  for (exits::ExitHead& exit : model.exits) {
    exit.gate = at::Tensor();
  }
  const Opinions opinions = read_opinions(model, sequences, temperatures_of(model), true, progress);
  for (size_t e = 0; e < model.exits.size(); ++e) {
    const ExitOpinions& said = opinions.exits[e];
    model.exits[e].gate = fit_gate(said.input, said.log_top, said.log_margin, said.agree);
  }
}

ExitCalibration describe(const exits::ExitHead& exit, const ExitOpinions& said, double temperature_before,
                         int64_t first, std::span<const double> agreements) {
  const auto test = [&](const at::Tensor& tensor) {
    return tensor.narrow(0, first, tensor.size(0) - first).contiguous();
  };
  const at::Tensor agree = test(said.agree), confidence = test(said.log_top.exp());
  const at::Tensor before = test(said.confidence_before);
  ExitCalibration result{.layer = exit.spec.layer,
                         .temperature_before = temperature_before,
                         .temperature = exit.spec.temperature};
  const auto agrees = numbers<uint8_t>(agree);
  result.error_before = expected_calibration_error(numbers<float>(before), agrees);
  result.error = expected_calibration_error(numbers<float>(confidence), agrees);
  result.agreement = agree.to(at::kDouble).mean().item<double>();
  result.selections.push_back(selection(numbers<float>(confidence), agrees, agreements));
  if (exit.gate.defined()) {
    const at::Tensor score = test(said.gate_after);
    result.selections.push_back(selection(numbers<float>(score), agrees, agreements));
  }
  return result;
}

// What is said of the sequences behind the first `skipped`.
Calibration describe_all(const infer::Model& model, const Opinions& opinions,
                         const std::vector<double>& before, int64_t skipped, std::vector<double> agreements) {
  Calibration result{.agreements = std::move(agreements)};
  const int64_t first = opinions.first_token(skipped),
                end = opinions.first_token(std::ssize(opinions.tokens));
  result.test_sequences = std::ssize(opinions.tokens) - skipped;
  result.test_tokens = end - first;
  for (size_t e = 0; e < model.exits.size(); ++e) {
    result.exits.push_back(describe(model.exits[e], opinions.exits[e], before[e], first, result.agreements));
  }
  return result;
}

}  // namespace

void check_calibration(const CalibrationOptions& options, size_t sequences) {
  const auto expect_share = [](double value, const char* what) {
    if (!(value > 0.0 && value < 1.0)) {
      throw base::UserError("{} is {}, expected a share between 0 and 1", what, value);
    }
  };
  for (const double agreement : options.agreements) {
    expect_share(agreement, "agreement");
  }
  expect_share(options.confidence, "confidence");
  if (sequences < kFewestForCalibration) {
    throw base::UserError(
        "the text gives {} sequences, calibration wants at least {}; give more text, or shorter sequences "
        "with --sequence-length",
        sequences, kFewestForCalibration);
  }
}

std::vector<config::QualityLevel> Calibration::quality() const {
  std::vector<config::QualityLevel> quality;
  for (const LevelResult& result : levels) {
    quality.push_back(result.level);
  }
  return quality;
}

void fit_gates(infer::Model& model, const Sequences& sequences) {
  fit_gates(model, sequences, [](int64_t) {});
}

Calibration calibrate(infer::Model& model, const Sequences& sequences, const CalibrationOptions& options,
                      const Progress& progress) {
  check_calibration(options, sequences.size());
  const Parts parts = split(sequences.size());
  const auto total = static_cast<int64_t>(sequences.size());
  const auto report = [&](int64_t before) {
    return [&progress, before, total](int64_t done) {
      if (progress) progress(before + done, total);
    };
  };
  const std::vector<double> before = temperatures_of(model);
  const Sequences fit = slice(sequences, 0, parts.fit);
  fit_temperatures(model, fit, report(0));
  for (exits::ExitHead& exit : model.exits) {
    exit.gate = at::Tensor();  // one of other temperatures
  }
  if (options.gates) {
    fit_gates(model, fit, report(0));
  }
  const Opinions opinions = read_opinions(model, slice(sequences, parts.fit, parts.map + parts.test), before,
                                          false, report(parts.fit));
  Calibration result = describe_all(model, opinions, before, parts.map, options.agreements);
  for (const Sequence& sequence : fit) {
    result.fit_tokens += scored_tokens(sequence);
  }
  for (const config::ExitPolicy policy : {config::ExitPolicy::confidence, config::ExitPolicy::gate}) {
    if (policy == config::ExitPolicy::gate && !options.gates) {
      continue;
    }
    const ScoreTable map = score_table(model, opinions, policy, 0, parts.map);
    const ScoreTable test = score_table(model, opinions, policy, parts.map, parts.test);
    for (const double agreement : options.agreements) {
      result.levels.push_back(find_level(map, test, agreement, options.confidence, policy));
    }
  }
  return result;
}

Calibration measure(const infer::Model& model, const std::vector<config::QualityLevel>& levels,
                    const Sequences& sequences, const Progress& progress) {
  const std::vector<double> temperatures = temperatures_of(model);
  const auto total = static_cast<int64_t>(sequences.size());
  const Opinions opinions = read_opinions(model, sequences, temperatures, false, [&](int64_t done) {
    if (progress) progress(done, total);
  });
  std::vector<double> agreements;
  for (const config::QualityLevel& level : levels) {
    if (std::ranges::find(agreements, level.agreement) == agreements.end()) {
      agreements.push_back(level.agreement);
    }
  }
  Calibration result = describe_all(model, opinions, temperatures, 0, agreements);
  for (const config::QualityLevel& level : levels) {
    const ScoreTable table = score_table(model, opinions, level.policy, 0, total);
    LevelResult found{.level = level, .outcome = apply_rules(table, level.exits)};
    found.bound = upper_bound(found.outcome.risks, level.confidence);
    result.levels.push_back(std::move(found));
  }
  return result;
}

}  // namespace ee::eval
