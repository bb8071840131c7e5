#include "ee/exits/ridge.h"

#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <optional>

#include "ee/base/error.h"

namespace ee::exits {

namespace {

// Sums of products of deviations from the means, or of the values themselves without an intercept.
struct Centered {
  at::Tensor features, cross;  // as NormalSums'
  double total = 0;            // of |y|^2

  Centered(const NormalSums& sums, bool intercept)
      : features(sums.features), cross(sums.cross), total(sums.moments[1].item<double>()) {
    if (!intercept) return;
    const double count = sums.moments[0].item<double>();
    features = features.sub(at::outer(sums.mean_x, sums.mean_x).div_(count));
    cross = cross.sub(at::outer(sums.mean_x, sums.mean_y).div_(count));
    total -= at::dot(sums.mean_y, sums.mean_y).item<double>() / count;
  }
};

// The equations with a penalty, each feature scaled to a unit diagonal.
class Equations {
 public:
  Equations(const Centered& sums, double strength) : sums_(sums) {
    const at::Tensor diagonal = sums.features.diagonal();
    scale_ = diagonal.clamp_min(1e-30).rsqrt();  // a feature that is always 0 stays out of it
    matrix_ = sums.features.mul(scale_).mul_(scale_.unsqueeze(1));
    matrix_.diagonal().fill_(1.0 + strength);
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
  const at::Tensor predicted = at::mv(weight.t(), sums.mean_x);  // sum over samples of W x
  const double quadratic = at::mm(sums.features, weight).mul_(weight).sum().item<double>();
  return sums.moments[1].item<double>() - 2 * sums.cross.mul(weight).sum().item<double>() + quadratic +
         2 * at::dot(bias, predicted.sub(sums.mean_y)).item<double>() +
         count * at::dot(bias, bias).item<double>();
}

at::Tensor bias_of(const NormalSums& sums, const at::Tensor& weight, bool intercept) {
  if (!intercept) return at::zeros_like(sums.mean_y);
  return sums.mean_y.sub(at::mv(weight.t(), sums.mean_x)).div_(sums.moments[0].item<double>());
}

NormalSums on_cpu(const NormalSums& sums) {
  return {sums.features.cpu(), sums.cross.cpu(), sums.mean_x.cpu(), sums.mean_y.cpu(), sums.moments.cpu()};
}

double choose_strength(const NormalSums& train, const NormalSums& held_out, bool intercept, double& error) {
  const Centered sums(train, intercept);
  double best = 0;
  error = std::numeric_limits<double>::infinity();
  for (int exponent = -7; exponent <= 1; ++exponent) {
    const Equations equations(sums, std::pow(10.0, exponent));
    if (!equations.definite()) continue;
    const at::Tensor weight = equations.weight();
    const double found = squared_error(held_out, weight, bias_of(train, weight, intercept));
    if (found >= error) continue;
    error = found;
    best = std::pow(10.0, exponent);
  }
  if (best == 0)
    throw base::UserError(
        "the regression has no solution: its {} features are not finite, or the same on all {} tokens",
        train.mean_x.size(0), train.moments[0].item<double>());
  return best;
}

}  // namespace

NormalSums NormalSums::zeros(int64_t features, int64_t outputs, at::Device device) {
  const auto options = at::TensorOptions(at::kDouble).device(device);
  return {at::zeros({features, features}, options), at::zeros({features, outputs}, options),
          at::zeros({features}, options), at::zeros({outputs}, options), at::zeros({2}, options)};
}

void NormalSums::add(const at::Tensor& x, const at::Tensor& y) {
  features.add_(at::mm(x.t(), x));
  cross.add_(at::mm(x.t(), y));
  mean_x.add_(x.sum(0, /*keepdim=*/false, at::kDouble));
  mean_y.add_(y.sum(0, /*keepdim=*/false, at::kDouble));
  moments[0].add_(x.size(0));
  moments[1].add_(y.to(at::kDouble).square_().sum());
}

NormalSums NormalSums::operator+(const NormalSums& other) const {
  return {features.add(other.features), cross.add(other.cross), mean_x.add(other.mean_x),
          mean_y.add(other.mean_y), moments.add(other.moments)};
}

RidgeSolution solve_ridge(const NormalSums& train_sums, const NormalSums& held_out_sums, bool intercept) {
  const NormalSums train = on_cpu(train_sums), held_out = on_cpu(held_out_sums);
  RidgeSolution solution;
  double error = 0;
  solution.strength = choose_strength(train, held_out, intercept, error);
  solution.unexplained = error / Centered(held_out, intercept).total;
  const NormalSums all = train + held_out;
  const Centered sums(all, intercept);
  const Equations equations(sums, solution.strength);
  EE_CHECK(equations.definite(), "equations that had a solution have none with more samples");
  const at::Tensor weight = equations.weight();
  solution.bias = bias_of(all, weight, intercept);
  solution.weight = weight.t().contiguous();
  solution.condition = equations.condition();
  solution.feature_variance = sums.features;
  return solution;
}

}  // namespace ee::exits
