// Ridge regression y = W x + b by normal equations, for more samples than memory holds.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

namespace ee::exits {

// What the normal equations are made of; sums over samples, so sums over ranks are right, too. All f64.
struct NormalSums {
  at::Tensor features;  // x x^T, [features, features]; what is below the diagonal does not count
  at::Tensor cross;     // x y^T, [features, outputs]
  at::Tensor sum_x;     // x, [features]
  at::Tensor sum_y;     // y, [outputs]
  at::Tensor moments;   // number of samples and |y|^2, [2]

  static NormalSums zeros(int64_t features, int64_t outputs, at::Device device);
  // x [n, features], y [n, outputs] f32. Products of a block are f32 (n of some thousand at most), their sums
  // f64: the error is that of one block, however many there are.
  void add(const at::Tensor& x, const at::Tensor& y);
  std::array<at::Tensor, 5> tensors() const { return {features, cross, sum_x, sum_y, moments}; }
  NormalSums operator+(const NormalSums& other) const;
};

struct RidgeSolution {
  at::Tensor weight;            // [outputs, features] f64
  at::Tensor bias;              // [outputs] f64; zeros without an intercept
  double strength = 0;          // that was chosen: share of its own square sum that is added to a feature's
  double unexplained = 0;       // squared error on the held-out samples over their variance
  double condition = 0;         // of the equations that were solved, features scaled to unit variance
  at::Tensor feature_variance;  // [features, features] f64: centered sums, for those who truncate the weight
};

// Chooses the strength among powers of ten from 10 down to 1e-7 by the error on `held_out`: the weakest
// within 1 % of the best. Then solves with all samples. The penalty of a feature is strength * penalty[i]
// (f64; undefined: all 1) of its own scale, the intercept has none. On the CPU by Cholesky: features^3 / 3
// operations a strength. UserError: no samples in one of the two, features that are not finite.
RidgeSolution solve_ridge(const NormalSums& train, const NormalSums& held_out, bool intercept,
                          const at::Tensor& penalty = {});

}  // namespace ee::exits
