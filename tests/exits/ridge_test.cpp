#include "ee/exits/ridge.h"

#include <ATen/ops/diag.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <ATen/ops/linalg_lstsq.h>
#include <ATen/ops/logspace.h>
#include <ATen/ops/mv.h>
#include <gtest/gtest.h>

#include <limits>

#include "ee/base/error.h"

namespace ee::exits {
namespace {

// Samples of y = W x + b + noise with features of very different scales and means.
struct Samples {
  at::Tensor x, y;          // [n, features], [n, outputs] f32
  at::Tensor weight, bias;  // f64

  Samples(int64_t n, int64_t features, int64_t outputs, double noise) {
    at::manual_seed(7);
    weight = at::randn({outputs, features}, at::kDouble);
    bias = at::randn({outputs}, at::kDouble);
    const at::Tensor scale = at::logspace(-2, 2, features, 10.0, at::kDouble);
    x = at::randn({n, features}, at::kDouble).add(3).mul(scale).to(at::kFloat);
    weight.div_(scale);
    y = at::linear(x.to(at::kDouble), weight, bias)
            .add(at::randn({n, outputs}, at::kDouble).mul(noise))
            .to(at::kFloat);
  }
  NormalSums sums(int64_t begin, int64_t end, int64_t block) const {
    auto sums = NormalSums::zeros(x.size(1), y.size(1), at::kCPU);
    for (int64_t at = begin; at < end; at += block)
      sums.add(x.slice(0, at, std::min(end, at + block)), y.slice(0, at, std::min(end, at + block)));
    return sums;
  }
};

double relative_error(const at::Tensor& got, const at::Tensor& expected) {
  return got.sub(expected).norm().item<double>() / expected.norm().item<double>();
}

TEST(Ridge, FindsTheMapBehindNoiselessSamples) {
  const Samples samples(2000, 12, 5, 0.0);
  const auto solution = solve_ridge(samples.sums(0, 1500, 128), samples.sums(1500, 2000, 128), true);
  EXPECT_LT(relative_error(solution.weight, samples.weight), 1e-4);
  EXPECT_LT(solution.bias.sub(samples.bias).abs().max().item<double>(), 1e-3);
  EXPECT_LT(solution.unexplained, 1e-6);
  EXPECT_EQ(solution.strength, 1e-7);
}

// Naive: the design matrix with a column of ones, least squares by SVD, the penalty as further rows.
TEST(Ridge, EqualsLeastSquaresWithPenaltyRows) {
  const Samples samples(400, 8, 3, 5.0);
  const auto solution = solve_ridge(samples.sums(0, 300, 64), samples.sums(300, 400, 64), true);
  const at::Tensor x = samples.x.to(at::kDouble), y = samples.y.to(at::kDouble);
  const at::Tensor centered = x.sub(x.mean(0)), target = y.sub(y.mean(0));
  const at::Tensor penalty = at::diag(centered.square().sum(0).mul(solution.strength).sqrt());
  const auto naive = std::get<0>(
      at::linalg_lstsq(at::cat({centered, penalty}), at::cat({target, at::zeros({8, 3}, at::kDouble)})));
  EXPECT_LT(relative_error(solution.weight, naive.t()), 1e-5);
  EXPECT_LT(relative_error(solution.bias, y.mean(0).sub(at::mv(naive.t(), x.mean(0)))), 1e-4);
}

// The same, with features that are penalized unequally.
TEST(Ridge, PenaltiesOfFeaturesAreRowsOfTheirOwn) {
  const Samples samples(400, 8, 3, 5.0);
  const at::Tensor relative = at::logspace(-1, 2, 8, 10.0, at::kDouble);
  const auto solution = solve_ridge(samples.sums(0, 300, 64), samples.sums(300, 400, 64), true, relative);
  const at::Tensor x = samples.x.to(at::kDouble), y = samples.y.to(at::kDouble);
  const at::Tensor centered = x.sub(x.mean(0)), target = y.sub(y.mean(0));
  const at::Tensor penalty = at::diag(centered.square().sum(0).mul(solution.strength).mul(relative).sqrt());
  const auto naive = std::get<0>(
      at::linalg_lstsq(at::cat({centered, penalty}), at::cat({target, at::zeros({8, 3}, at::kDouble)})));
  EXPECT_LT(relative_error(solution.weight, naive.t()), 1e-5);
}

// More features than a block of the products has columns.
TEST(Ridge, ProductsOfManyFeaturesAreWhole) {
  const Samples samples(2000, 600, 2, 0.0);
  const auto sums = samples.sums(0, 2000, 700);
  const at::Tensor x = samples.x.to(at::kDouble);
  EXPECT_LT(relative_error(sums.features.triu(), at::mm(x.t(), x).triu()), 1e-6);
}

TEST(Ridge, UnexplainedIsTheHeldOutErrorOverItsVariance) {
  const Samples samples(3000, 6, 4, 2.0);
  const auto train = samples.sums(0, 2000, 500), held_out = samples.sums(2000, 3000, 500);
  const auto solution = solve_ridge(train, held_out, true);
  const at::Tensor x = samples.x.slice(0, 2000).to(at::kDouble), y = samples.y.slice(0, 2000).to(at::kDouble);
  const double error = y.sub(at::linear(x, solution.weight, solution.bias)).square().sum().item<double>();
  const double variance = y.sub(y.mean(0)).square().sum().item<double>();
  EXPECT_NEAR(solution.unexplained, error / variance,
              0.01 * error / variance);  // solved again with all samples
}

TEST(Ridge, ChoosesAStrongerPenaltyForFewNoisySamples) {
  const Samples few(60, 40, 3, 100.0), many(20000, 40, 3, 0.1);
  const double noisy = solve_ridge(few.sums(0, 45, 64), few.sums(45, 60, 64), true).strength;
  const double clean = solve_ridge(many.sums(0, 15000, 1024), many.sums(15000, 20000, 1024), true).strength;
  EXPECT_GT(noisy, 100 * clean);
}

TEST(Ridge, WithoutAnInterceptTheBiasIsZero) {
  const Samples samples(500, 5, 2, 0.0);
  const auto solution = solve_ridge(samples.sums(0, 400, 100), samples.sums(400, 500, 100), false);
  EXPECT_EQ(solution.bias.abs().max().item<double>(), 0.0);
}

TEST(Ridge, SumsOfPartsAreTheSumOfAll) {
  const Samples samples(256, 7, 3, 1.0);
  const auto parts = samples.sums(0, 100, 50) + samples.sums(100, 256, 50), whole = samples.sums(0, 256, 256);
  for (size_t i = 0; i < parts.tensors().size(); ++i)
    EXPECT_LT(relative_error(parts.tensors()[i], whole.tensors()[i]), 1e-6) << i;
}

TEST(Ridge, ConditionIsThatOfTheScaledEquations) {
  const Samples samples(1000, 10, 2, 1.0);
  const auto solution = solve_ridge(samples.sums(0, 800, 200), samples.sums(800, 1000, 200), true);
  const at::Tensor variance = solution.feature_variance;
  const at::Tensor scale = variance.diagonal().rsqrt();
  const at::Tensor scaled =
      variance.mul(scale).mul(scale.unsqueeze(1)).add(at::eye(10, at::kDouble).mul(solution.strength));
  const at::Tensor values = at::linalg_eigvalsh(scaled);
  const double expected = values[-1].item<double>() / values[0].item<double>();
  EXPECT_NEAR(solution.condition, expected, 0.02 * expected);
}

TEST(Ridge, FeaturesThatAreNotFiniteAreTheUsersError) {
  Samples samples(100, 4, 2, 1.0);
  samples.x[0][1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(solve_ridge(samples.sums(0, 80, 40), samples.sums(80, 100, 40), true), base::UserError);
}

}  // namespace
}  // namespace ee::exits
