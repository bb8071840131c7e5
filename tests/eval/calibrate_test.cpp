#include "ee/eval/calibrate.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/sigmoid.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "agreement.h"
#include "ee/base/error.h"
#include "ee/exits/exit_gate.h"
#include "ee/infer/engine.h"
#include "gate_fit.h"
#include "support/tiny_model.h"
#include "temperature.h"

namespace ee::eval {
namespace {

at::Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> number;
  at::Tensor tensor = at::empty(shape, at::kFloat);
  std::generate_n(tensor.mutable_data_ptr<float>(), tensor.numel(), [&] { return number(random); });
  return tensor;
}

TEST(HeadStatistics, EqualThoseOfWholeLogits) {
  const at::Tensor rows = normal({300, 8}, 1), weight = normal({9000, 8}, 2);  // several blocks and chunks
  const at::Tensor labels = at::arange(300, at::kLong) * 29;
  const std::vector<double> temperatures = {0.3, 1.0, 2.5};
  const HeadStatistics ours = head_statistics(rows, weight, temperatures, labels);
  const at::Tensor logits = at::matmul(rows, weight.t());
  const auto [top, ids] = logits.topk(2);
  EXPECT_TRUE(at::equal(ours.argmax, ids.select(1, 0)));
  EXPECT_TRUE(at::allclose(ours.top, top.select(1, 0)));
  EXPECT_TRUE(at::allclose(ours.second, top.select(1, 1)));
  EXPECT_TRUE(at::allclose(ours.label, logits.gather(1, labels.unsqueeze(1)).squeeze(1)));
  for (size_t k = 0; k < temperatures.size(); ++k) {
    const at::Tensor scaled = logits / temperatures[k];
    const auto row = static_cast<int64_t>(k);
    EXPECT_TRUE(at::allclose(ours.log_sum[row], at::logsumexp(scaled, {1}), 1e-4, 1e-4));
    EXPECT_TRUE(at::allclose(ours.mean[row], (at::softmax(scaled, -1) * logits).sum(1), 1e-3, 1e-3));
  }
}

TEST(Temperature, RecoversTheOneThatLabelsWereDrawnAt) {
  constexpr int64_t kTokens = 20000;
  const at::Tensor rows = normal({kTokens, 6}, 3), weight = normal({40, 6}, 4);
  for (const double truth : {0.6, 1.7}) {
    // Gumbel's trick: the largest of logit / T + noise is a draw from softmax(logit / T).
    std::mt19937_64 random(5);
    std::uniform_real_distribution<double> uniform(1e-12, 1.0);
    at::Tensor noise = at::empty({kTokens, 40}, at::kFloat);
    std::generate_n(noise.mutable_data_ptr<float>(), noise.numel(),
                    [&] { return static_cast<float>(-std::log(-std::log(uniform(random)))); });
    const at::Tensor labels = (at::matmul(rows, weight.t()) / truth + noise).argmax(1);
    LikelihoodCurve curve;
    add(curve, head_statistics(rows, weight, temperature_grid(), labels));
    EXPECT_NEAR(best_temperature(curve), truth, 0.03 * truth);
  }
}

TEST(Temperature, StaysWithinTheGridWhenTheCurveHasNoLowestPoint) {
  const at::Tensor rows = normal({50, 6}, 3), weight = normal({40, 6}, 4);
  const at::Tensor logits = at::matmul(rows, weight.t());
  LikelihoodCurve sure, wrong;
  add(sure, head_statistics(rows, weight, temperature_grid(), logits.argmax(1)));
  add(wrong, head_statistics(rows, weight, temperature_grid(), logits.argmin(1)));
  EXPECT_EQ(best_temperature(sure), 0.25);
  EXPECT_EQ(best_temperature(wrong), 4.0);
}

TEST(GateFit, FindsTheLogisticRegressionThatLabelsWereDrawnFrom) {
  constexpr int64_t kRows = 40000;
  const at::Tensor x = at::cat({normal({kRows, 3}, 6) * 3.0 + 1.0, at::ones({kRows, 1})}, 1);
  const at::Tensor truth = at::tensor(std::vector<double>{0.5, -0.3, 0.0, 0.2}, at::kDouble);
  const at::Tensor p = at::sigmoid(at::matmul(x.to(at::kDouble), truth));
  std::mt19937_64 random(8);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  at::Tensor y = at::empty({kRows}, at::kDouble);
  for (int64_t i = 0; i < kRows; ++i) {
    y.mutable_data_ptr<double>()[i] = uniform(random) < p.const_data_ptr<double>()[i];
  }
  const at::Tensor found = fit_logistic(x, y, 1e-6);
  EXPECT_TRUE(at::allclose(found, truth, 0.05, 0.05));
  // The lowest point: the gradient of the loss vanishes there.
  const at::Tensor gradient =
      at::matmul(x.to(at::kDouble).t(), at::sigmoid(at::matmul(x.to(at::kDouble), found)) - y) / kRows;
  EXPECT_LT(gradient.abs().max().item<double>(), 1e-4);
}

TEST(GateFit, StaysFiniteWhenAllLabelsAreEqualOrAFeatureNeverChanges) {
  const at::Tensor x = at::cat({normal({100, 2}, 1), at::ones({100, 2})}, 1);
  for (const double label : {0.0, 1.0}) {
    EXPECT_TRUE(at::isfinite(fit_logistic(x, at::full({100}, label), 1e-2)).all().item<bool>());
  }
}

infer::Model tiny_model() {
  infer::Model model;
  model.backbone = test::tiny_backbone(test::tiny_config());
  model.exits = test::tiny_exits(
      model.backbone, {{.layer = 4, .kind = config::ExitKind::norm, .norm = config::NormKind::shared},
                       {.layer = 5, .kind = config::ExitKind::norm, .norm = config::NormKind::shared}});
  return model;
}

// The engine and the tables do not look at what follows but for whether it is a prompt.
Sequences random_sequences(size_t count, size_t length, uint64_t seed) {
  std::mt19937_64 random(seed);
  Sequences sequences(count);
  for (Sequence& sequence : sequences) {
    for (size_t i = 0; i < length; ++i) {
      sequence.tokens.push_back(static_cast<int64_t>(random() % 97));
      sequence.targets.push_back(random() % 5 == 0 ? kernels::kIgnoreToken : 1);
    }
  }
  return sequences;
}

// As many scored tokens as it takes, not as many sequences as would hold them without prompts.
TEST(Calibrate, TemperaturesAreOfTheScoredTokens) {
  infer::Model model = tiny_model();
  Sequences sequences = random_sequences(300, 64, 1);
  for (Sequence& sequence : sequences) {
    std::fill_n(sequence.targets.begin(), 56, kernels::kIgnoreToken);
    sequence.targets.back() = 1;
  }
  const auto curves = read_likelihoods(model, {sequences.begin(), sequences.begin() + 100}, [](int64_t) {});
  calibrate(model, sequences, {});
  for (size_t e = 0; e < curves.size(); ++e) {
    EXPECT_EQ(model.exits[e].spec.temperature, best_temperature(curves[e]));
  }
}

// Exits of a random model disagree a lot; still some levels let tokens leave, and hold on fresh sequences.
TEST(Calibrate, LevelsOfATinyModelHoldOnFreshSequences) {
  infer::Model model = tiny_model();
  const Calibration found = calibrate(model, random_sequences(90, 64, 1),
                                      {.agreements = {0.9, 0.7}, .confidence = 0.95, .gates = true});
  ASSERT_EQ(found.levels.size(), 4u);  // two of each policy
  EXPECT_EQ(found.test_sequences, 45);
  const Calibration fresh = measure(model, found.quality(), random_sequences(90, 64, 2));
  for (size_t i = 0; i < found.levels.size(); ++i) {
    EXPECT_GT(found.levels[i].outcome.leaving(), 0.0) << to_table(found);
    EXPECT_LE(found.levels[i].bound, 1 - found.levels[i].level.agreement);
    EXPECT_LE(fresh.levels[i].outcome.risk(), 1 - found.levels[i].level.agreement) << to_table(fresh);
  }
  for (const ExitCalibration& exit : found.exits) {
    EXPECT_LT(exit.error, exit.error_before) << to_table(found);
    EXPECT_EQ(exit.selections.size(), 2u);
  }
}

// The engine's decisions, token by token, are those that the calibration counted.
TEST(Calibrate, TheEngineLeavesWhereTheTableSaysForEitherPolicy) {
  infer::Model model = tiny_model();
  const Calibration found =
      calibrate(model, random_sequences(60, 64, 1), {.agreements = {0.7}, .gates = true});
  const Sequences sequences = random_sequences(3, 40, 9);
  const Calibration table = measure(model, found.quality(), sequences);
  for (const LevelResult& expected : table.levels) {
    std::vector<double> leave(model.exits.size());
    for (const Sequence& sequence : sequences) {
      infer::Engine engine(model.backbone, model.exits,
                           {.capacity = 64, .policy = expected.level.policy, .rules = expected.level.exits});
      for (size_t i = 0; i < sequence.tokens.size(); ++i) {
        const int64_t exit = engine.step({&sequence.tokens[i], 1}).exit;
        if (exit != infer::kFinalLayer && sequence.targets[i] != kernels::kIgnoreToken) {
          leave[static_cast<size_t>(exit)] += 1.0 / static_cast<double>(table.test_tokens);
        }
      }
    }
    EXPECT_THAT(leave, testing::Pointwise(testing::DoubleNear(1e-9), expected.outcome.leave));
  }
  EXPECT_GT(table.levels[1].outcome.leaving(), 0.0);
}

TEST(Calibrate, ProbingAGatedModelDecidesTheSame) {
  infer::Model model = tiny_model();
  fit_gates(model, random_sequences(40, 64, 1));
  const std::vector<config::ExitRule> rules = {{.layer = 4, .threshold = 0.4, .ask = 0.3},
                                               {.layer = 5, .threshold = 0.3, .ask = 0.3}};
  const auto policy = config::ExitPolicy::gate;
  infer::Engine engine(model.backbone, model.exits, {.capacity = 64, .policy = policy, .rules = rules});
  infer::Engine probing(model.backbone, model.exits,
                        {.capacity = 64, .policy = policy, .rules = rules, .probe = true});
  int early = 0;
  const std::vector<int64_t> tokens = random_sequences(1, 60, 3)[0].tokens;
  for (const int64_t token : tokens) {
    const infer::Prediction a = engine.step({&token, 1}), b = probing.step({&token, 1});
    EXPECT_EQ(a.exit, b.exit);
    EXPECT_EQ(a.token, b.token);
    early += a.exit != infer::kFinalLayer;
  }
  EXPECT_GT(early, 0);
  EXPECT_LT(early, 60);
}

TEST(Calibrate, RefusesTooFewSequencesAndSharesOutOfRange) {
  infer::Model model = tiny_model();
  EXPECT_THROW(calibrate(model, random_sequences(kFewestForCalibration - 1, 9, 1), {}), base::UserError);
  EXPECT_THROW(calibrate(model, random_sequences(40, 9, 1), {.agreements = {1.0}}), base::UserError);
  EXPECT_THROW(calibrate(model, random_sequences(40, 9, 1), {.confidence = 0.0}), base::UserError);
}

}  // namespace
}  // namespace ee::eval
