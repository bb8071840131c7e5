#include "ee/exits/ridge.h"

#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ee/base/error.h"

namespace ee::exits {

namespace {

constexpr double kAboutAsGood = 1.01;

// Sums of products of deviations from the means, or of the values themselves without an intercept.
struct Centered {
  at::Tensor features, cross;  // as NormalSums'
  double total = 0;            // of |y|^2

  Centered(const NormalSums& sums, bool intercept)
      : features(sums.features), cross(sums.cross), total(sums.moments[1].item<double>()) {
    if (!intercept) return;
    const double count = sums.moments[0].item<double>();
    features = features.sub(at::outer(sums.sum_x, sums.sum_x).div_(count));
    cross = cross.sub(at::outer(sums.sum_x, sums.sum_y).div_(count));
    total -= at::dot(sums.sum_y, sums.sum_y).item<double>() / count;
  }
};

// The equations with a penalty, each feature scaled to a unit diagonal.
class Equations {
 public:
  // penalty [features]
  Equations(const Centered& sums, const at::Tensor& penalty) : sums_(sums) {
    const at::Tensor diagonal = sums.features.diagonal();
    scale_ = diagonal.clamp_min(1e-30).rsqrt();  // a feature that is always 0 stays out of it
    matrix_ = sums.features.mul(scale_).mul_(scale_.unsqueeze(1));
    matrix_.diagonal().copy_(penalty).add_(1.0);
    const auto [factor, info] = at::linalg_cholesky_ex(matrix_);
    if (info.item<int>() == 0) factor_ = factor;
  }

  bool definite() const { return factor_.defined(); }
  at::Tensor weight() const {  // [features, outputs]
    return at::cholesky_solve(sums_.cross.mul(scale_.unsqueeze(1)), factor_).mul_(scale_.unsqueeze(1));
  }
  // Largest over smallest eigenvalue, by power iterations with the matrix and its inverse.
  double condition() const {
    constexpr int kIterations = 30;
    const auto largest = [&](auto&& apply) {
      at::Tensor vector = at::ones({matrix_.size(0), 1}, matrix_.options());
      vector.select(1, 0).slice(0, 0, {}, 2).mul_(-0.5);  // not orthogonal to either kind of eigenvector
      double norm = 0;
      for (int i = 0; i < kIterations; ++i) {
        vector = apply(vector.div(vector.norm()));
        norm = vector.norm().template item<double>();
      }
      return norm;
    };
    return largest([&](const at::Tensor& v) { return at::mm(matrix_, v); }) *
           largest([&](const at::Tensor& v) { return at::cholesky_solve(v, factor_); });
  }

 private:
  const Centered& sums_;
  at::Tensor scale_, matrix_, factor_;
};

// Sum over the samples of |y - W x - b|^2 with given weight [features, outputs] and bias [outputs].
double squared_error(const NormalSums& sums, const at::Tensor& weight, const at::Tensor& bias) {
  const double count = sums.moments[0].item<double>();
  const at::Tensor predicted = at::mv(weight.t(), sums.sum_x);  // sum over samples of W x
  const double quadratic = at::mm(sums.features, weight).mul_(weight).sum().item<double>();
  return sums.moments[1].item<double>() - 2 * sums.cross.mul(weight).sum().item<double>() + quadratic +
         2 * at::dot(bias, predicted.sub(sums.sum_y)).item<double>() +
         count * at::dot(bias, bias).item<double>();
}

at::Tensor bias_of(const NormalSums& sums, const at::Tensor& weight, bool intercept) {
  if (!intercept) return at::zeros_like(sums.sum_y);
  return sums.sum_y.sub(at::mv(weight.t(), sums.sum_x)).div_(sums.moments[0].item<double>());
}

// With both halves of the features' products.
NormalSums completed(const NormalSums& sums) {
  const at::Tensor upper = sums.features.cpu().triu();
  return {upper.add(upper.triu(1).t()), sums.cross.cpu(), sums.sum_x.cpu(), sums.sum_y.cpu(),
          sums.moments.cpu()};
}

// From strong to weak the held-out error falls, then rises. The weakest that is about as good as the best:
// shrinking a prediction costs less in squared error than in what is said with it.
double choose_strength(const NormalSums& train, const NormalSums& held_out, bool intercept,
                       const at::Tensor& penalty, double& error) {
  const Centered sums(train, intercept);
  double best = 0;
  error = std::numeric_limits<double>::infinity();
  for (int exponent = 1; exponent >= -7; --exponent) {
    const double strength = std::pow(10.0, exponent);
    const Equations equations(sums, penalty.mul(strength));
    if (!equations.definite()) break;
    const at::Tensor weight = equations.weight();
    const double found = squared_error(held_out, weight, bias_of(train, weight, intercept));
    if (!(found < kAboutAsGood * error)) break;
    error = std::min(error, found);
    best = strength;
  }
  if (best == 0)
    throw base::UserError(
        "the regression has no solution: its {} features are not finite, or the same on all {} tokens",
        train.sum_x.size(0), train.moments[0].item<double>());
  return best;
}

}  // namespace

NormalSums NormalSums::zeros(int64_t features, int64_t outputs, at::Device device) {
  const auto options = at::TensorOptions(at::kDouble).device(device);
  return {at::zeros({features, features}, options), at::zeros({features, outputs}, options),
          at::zeros({features}, options), at::zeros({outputs}, options), at::zeros({2}, options)};
}

void NormalSums::add(const at::Tensor& x, const at::Tensor& y) {
  constexpr int64_t kBlock = 256;  // columns: of symmetric products little more than one half is computed
  for (int64_t begin = 0; begin < x.size(1); begin += kBlock) {
    const at::Tensor rows = x.slice(1, begin, begin + kBlock);
    features.slice(0, begin, begin + kBlock).slice(1, begin).add_(at::mm(rows.t(), x.slice(1, begin)));
  }
  cross.add_(at::mm(x.t(), y));
  sum_x.add_(x.sum(0, /*keepdim=*/false, at::kDouble));
  sum_y.add_(y.sum(0, /*keepdim=*/false, at::kDouble));
  moments[0].add_(x.size(0));
  moments[1].add_(y.to(at::kDouble).square_().sum());
}

NormalSums NormalSums::operator+(const NormalSums& other) const {
  return {features.add(other.features), cross.add(other.cross), sum_x.add(other.sum_x),
          sum_y.add(other.sum_y), moments.add(other.moments)};
}

RidgeSolution solve_ridge(const NormalSums& train_sums, const NormalSums& held_out_sums, bool intercept,
                          const at::Tensor& penalty) {
  const NormalSums train = completed(train_sums), held_out = completed(held_out_sums);
  for (const NormalSums* part : {&train, &held_out})
    if (part->moments[0].item<double>() == 0)
      throw base::UserError("the text has no tokens to learn {}; prompts do not count",
                            part == &train ? "in what exits are fitted on" : "in what chooses the ridge");
  const at::Tensor relative = penalty.defined() ? penalty : at::ones_like(train.sum_x);
  RidgeSolution solution;
  double error = 0;
  solution.strength = choose_strength(train, held_out, intercept, relative, error);
  solution.unexplained = error / Centered(held_out, intercept).total;
  const NormalSums all = train + held_out;
  const Centered sums(all, intercept);
  const Equations equations(sums, relative.mul(solution.strength));
  EE_CHECK(equations.definite(), "equations that had a solution have none with more samples");
  const at::Tensor weight = equations.weight();
  solution.bias = bias_of(all, weight, intercept);
  solution.weight = weight.t().contiguous();
  solution.condition = equations.condition();
  solution.feature_variance = sums.features;
  return solution;
}

}  // namespace ee::exits
