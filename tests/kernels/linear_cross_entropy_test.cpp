#include "kernels/linear_cross_entropy_problem.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

namespace ee::kernels {
namespace {

// The definition, in f64, with all logits at once.
Result reference(const Problem& problem, double temperature, double filter = 0) {
  const at::Tensor hidden = problem.hidden.to(at::kDouble), weight = problem.weight.to(at::kDouble);
  const at::Tensor log_p = at::log_softmax(at::matmul(hidden, weight.t()).div(temperature), 1);
  const at::Tensor p = log_p.exp();
  const at::Tensor ignored = problem.targets.eq(kIgnoreToken);
  const at::Tensor target = problem.targets.masked_fill(ignored, 0).unsqueeze(1);
  const at::Tensor onehot = at::zeros_like(p).scatter_(1, target, 1);
  at::Tensor gradient = at::where(p.ge(filter).logical_or(onehot.eq(1)), p.sub(onehot), at::zeros_like(p));
  if (filter > 0) gradient.sub_(gradient.mean(1, true));  // spreads what was dropped
  gradient.mul_(problem.scale.masked_fill(ignored, 0).div(temperature).unsqueeze(1));
  return {.loss = log_p.gather(1, target).squeeze(1).neg().masked_fill(ignored, 0),
          .confidence = p.amax(1),
          .argmax = p.argmax(1),
          .grad_hidden = at::matmul(gradient, weight),
          .grad_weight = at::matmul(gradient.t(), hidden)};
}

void expect_equal(const Result& got, const Result& expected, double tolerance = 2e-5) {
  EXPECT_LT(got.loss.to(at::kDouble).sub(expected.loss).abs().max().item<double>(), tolerance * 10);
  EXPECT_LT(got.confidence.to(at::kDouble).sub(expected.confidence).abs().max().item<double>(), tolerance);
  EXPECT_TRUE(at::equal(got.argmax, expected.argmax));
  EXPECT_LT(relative_error(got.grad_hidden, expected.grad_hidden), tolerance);
  EXPECT_LT(relative_error(got.grad_weight, expected.grad_weight), tolerance);
}

// Every fact holds for the fused path and for the plain one that other devices take.
class LinearCrossEntropyPaths : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override { at::manual_seed(7); }

  LinearCrossEntropyOptions options(double temperature = 1, double filter = 0, int64_t chunk = 4096) const {
    return {.temperature = temperature, .gradient_filter = filter, .vocab_chunk = chunk, .plain = GetParam()};
  }
};

INSTANTIATE_TEST_SUITE_P(Path, LinearCrossEntropyPaths, testing::Bool(),
                         [](const auto& info) { return info.param ? "Plain" : "Fused"; });

TEST_P(LinearCrossEntropyPaths, EqualsTheDefinition) {
  const Problem problem(37, 72, 1000, 3);
  expect_equal(run(problem, options()), reference(problem, 1));
}

TEST_P(LinearCrossEntropyPaths, DividesLogitsByTheTemperature) {
  const Problem problem(20, 48, 700, 3);
  for (double temperature : {0.5, 2.5}) {
    expect_equal(run(problem, options(temperature)), reference(problem, temperature));
    expect_equal(run(problem, options(temperature, 1e-3)), reference(problem, temperature, 1e-3));
  }
}

TEST_P(LinearCrossEntropyPaths, TakesAnyWidthVocabularyAndChunk) {
  for (auto [tokens, width, vocab, chunk] : {std::array<int64_t, 4>{1, 1, 1, 8},
                                             {1, 16, 999, 100},
                                             {16, 5, 7, 3},
                                             {17, 65, 193, 192},
                                             {33, 130, 6, 6}}) {
    SCOPED_TRACE(fmt::format("tokens {} width {} vocab {} chunk {}", tokens, width, vocab, chunk));
    const Problem problem(tokens, width, vocab, 2);
    expect_equal(run(problem, options(1, 0, chunk)), reference(problem, 1));
    expect_equal(run(problem, options(1, 0.01, chunk)), reference(problem, 1, 0.01));
  }
}

TEST_P(LinearCrossEntropyPaths, IgnoredTokensHaveNoLossAndNoGradient) {
  Problem problem(35, 40, 300, 2);
  problem.targets.slice(0, 3, 30, 4).fill_(kIgnoreToken);
  for (double filter : {0.0, 1e-3}) {
    const Result got = run(problem, options(1, filter));
    expect_equal(got, reference(problem, 1, filter));
    EXPECT_EQ(got.loss[3].item<float>(), 0);
    EXPECT_EQ(got.grad_hidden[3].abs().max().item<float>(), 0);
  }
}

TEST_P(LinearCrossEntropyPaths, FilterDropsSmallEntriesButNeverTheTarget) {
  const Problem problem(40, 64, 2000, 4);
  const double filter = 1.0 / 4096;
  expect_equal(run(problem, options(1, filter)), reference(problem, 1, filter));
  expect_equal(run(problem, options(1, 0.9)), reference(problem, 1, 0.9));
}

// The difference to the exact gradient is a sum of dropped p times embedding rows minus the mean row.
TEST_P(LinearCrossEntropyPaths, FilterErrorIsBoundedByTheDroppedMass) {
  const Problem problem(24, 64, 3000, 4);
  const double filter = 1e-4;
  const at::Tensor p = at::softmax(at::matmul(problem.hidden, problem.weight.t()), 1);
  const at::Tensor dropped = at::where(p.lt(filter), p, at::zeros_like(p)).sum(1);
  const at::Tensor bound = dropped.mul(problem.scale).mul(problem.weight.norm(2, 1).max()).mul(2);
  const at::Tensor error =
      run(problem, options(1, filter)).grad_hidden.sub(run(problem, options()).grad_hidden).norm(2, 1);
  EXPECT_TRUE(error.le(bound.add(1e-5)).all().item<bool>());
  EXPECT_GT(error.max().item<double>(), 1e-4);  // something was dropped
}

// A vector added to all rows of the embedding changes no probability, so no gradient either.
TEST_P(LinearCrossEntropyPaths, FilteredGradientsDoNotSeeTheMeanRow) {
  Problem problem(24, 64, 3000, 4);
  const at::Tensor before = run(problem, options(1, 1e-3)).grad_hidden;
  problem.weight.add_(at::full({64}, 2.0f));
  const at::Tensor after = run(problem, options(1, 1e-3)).grad_hidden;
  EXPECT_LT(relative_error(after, before.to(at::kDouble)), 1e-4);
}

// Half a percent of the mass lies in entries of about the last bit of the sum.
TEST_P(LinearCrossEntropyPaths, SumsALongTail) {
  Problem problem(5, 8, 49152, 0);
  problem.hidden.fill_(1);
  problem.weight.fill_(-20.0f / 8);
  problem.weight[0].fill_(-4.0f / 8);
  const Result got = run(problem, options()), expected = reference(problem, 1);
  EXPECT_LT(got.loss.to(at::kDouble).sub(expected.loss).abs().max().item<double>(), 1e-5);
  EXPECT_LT(got.confidence.to(at::kDouble).sub(expected.confidence).abs().max().item<double>(), 5e-6);
}

// Nearly all of 9000 entries pass the filter, more than a token's candidate list holds.
TEST_P(LinearCrossEntropyPaths, FlatDistributionsOverflowIntoTheDensePath) {
  Problem problem(19, 24, 9000, 0.05);
  problem.hidden.slice(0, 0, 19, 3).mul_(200);  // some tokens stay sparse
  problem.targets[4] = kIgnoreToken;
  expect_equal(run(problem, options(1, 1e-5)), reference(problem, 1, 1e-5));
}

TEST_P(LinearCrossEntropyPaths, FilterAboveAFlatDistributionLeavesTheTargetAlone) {
  const Problem problem(8, 24, 5000, 0.01);
  expect_equal(run(problem, options(1, 0.01)), reference(problem, 1, 0.01));
}

TEST_P(LinearCrossEntropyPaths, WidensBfloat16) {
  const Problem problem(21, 64, 500, 3, at::kBFloat16);
  for (double filter : {0.0, 1e-3}) {
    const Result got = run(problem, options(1, filter)), expected = reference(problem, 1, filter);
    EXPECT_EQ(got.grad_hidden.scalar_type(), at::kBFloat16);
    EXPECT_LT(got.loss.sub(expected.loss).abs().max().item<double>(), 1e-4);
    EXPECT_TRUE(at::equal(got.argmax, expected.argmax));
    EXPECT_LT(relative_error(got.grad_hidden, expected.grad_hidden), 4e-3);  // rounded once, at the end
    EXPECT_LT(relative_error(got.grad_weight, expected.grad_weight), 2e-5);
  }
}

TEST_P(LinearCrossEntropyPaths, LargeLogitsStayFinite) {
  Problem problem(12, 16, 400, 1);
  problem.hidden.mul_(1e4);
  for (double filter : {0.0, 1e-4}) {
    const Result got = run(problem, options(1, filter)), expected = reference(problem, 1, filter);
    EXPECT_TRUE(at::isfinite(got.grad_hidden).all().item<bool>());
    EXPECT_TRUE(at::allclose(got.loss.to(at::kDouble), expected.loss, 1e-5, 1e-2));
    EXPECT_TRUE(at::equal(got.argmax, expected.argmax));
    EXPECT_LT(relative_error(got.grad_hidden, expected.grad_hidden), 1e-3);
  }
}

TEST_P(LinearCrossEntropyPaths, NanIsNotHidden) {
  Problem problem(4, 16, 100, 1);
  problem.hidden[2][3] = NAN;
  const Result got = run(problem, options(1, 1e-3));
  EXPECT_TRUE(std::isnan(got.loss[2].item<float>()));
  EXPECT_TRUE(std::isnan(got.grad_hidden[2][0].item<float>()));
  EXPECT_TRUE(std::isfinite(got.loss[1].item<float>()));
}

TEST_P(LinearCrossEntropyPaths, AddsToTheWeightGradient) {
  const Problem problem(10, 32, 200, 2);
  LinearCrossEntropy loss(problem.hidden, problem.weight, problem.targets, options(1, 1e-3));
  loss.forward();
  at::Tensor grad_weight = at::ones(problem.weight.sizes());
  loss.backward(problem.scale, grad_weight);
  EXPECT_LT(relative_error(grad_weight.sub(1), reference(problem, 1, 1e-3).grad_weight), 1e-5);
}

TEST_P(LinearCrossEntropyPaths, SameBitsEveryRun) {
  const Problem problem(100, 96, 5000, 4);
  const Result once = run(problem, options(1, 1e-4)), again = run(problem, options(1, 1e-4));
  EXPECT_TRUE(at::equal(once.loss, again.loss));
  EXPECT_TRUE(at::equal(once.grad_hidden, again.grad_hidden));
  EXPECT_TRUE(at::equal(once.grad_weight, again.grad_weight));
}

TEST_P(LinearCrossEntropyPaths, FirstOfEqualLogitsWins) {
  Problem problem(18, 16, 300, 2);
  problem.weight.copy_(problem.weight.slice(0, 0, 100).repeat({3, 1}));  // each row thrice
  EXPECT_LT(run(problem, options()).argmax.max().item<int64_t>(), 100);
}

// Fewer panels of tokens than threads: the vocabulary is divided instead.
TEST(LinearCrossEntropy, FewTokensAreSharedByThreads) {
  const int threads = at::get_num_threads();
  at::set_num_threads(5);
  at::manual_seed(3);
  const Problem few(18, 64, 6000, 3), flat(3, 16, 30000, 0.05);
  expect_equal(run(few, {.gradient_filter = 1e-4}), reference(few, 1, 1e-4));
  expect_equal(run(flat, {.gradient_filter = 1e-6}), reference(flat, 1, 1e-6));
  at::set_num_threads(threads);
}

TEST(LinearCrossEntropy, StatisticsAloneAreTheSame) {
  const Problem problem(40, 64, 900, 3);
  LinearCrossEntropy loss(problem.hidden, problem.weight, problem.targets, {.temperature = 1.5});
  const TokenStats& expected = loss.forward();
  const TokenStats got = linear_token_stats(problem.hidden, problem.weight, problem.targets, 1.5);
  EXPECT_TRUE(at::equal(got.loss, expected.loss));
  EXPECT_TRUE(at::equal(got.confidence, expected.confidence));
  EXPECT_TRUE(at::equal(got.argmax, expected.argmax));
}

TEST(LinearCrossEntropy, RefusesTargetsOutsideTheVocabulary) {
  Problem problem(4, 16, 100, 1);
  problem.targets[1] = 100;
  EXPECT_THROW(run(problem, {}), base::InternalError);
  problem.targets[1] = -7;
  EXPECT_THROW(run(problem, {}), base::InternalError);
}

TEST(LinearCrossEntropy, BackwardNeedsForward) {
  const Problem problem(4, 16, 100, 1);
  LinearCrossEntropy loss(problem.hidden, problem.weight, problem.targets, {});
  EXPECT_THROW(loss.backward(problem.scale), base::InternalError);
}

}  // namespace
}  // namespace ee::kernels
