#include "gate_fit.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softplus.h>

#include <limits>

#include "ee/exits/exit_gate.h"

namespace ee::eval {

namespace {

constexpr int kNewtonSteps = 30;
constexpr double kConverged = 1e-9;  // of the loss
constexpr double kRidges[] = {1e-3, 1e-2, 1e-1};

// log(1 + exp(z)) - y z, mean, and the penalty on standardized weights.
double penalized_loss(const at::Tensor& x, const at::Tensor& y, const at::Tensor& w,
                      const at::Tensor& penalty) {
  return logistic_loss(x, y, w) + 0.5 * (penalty * w.square()).sum().item<double>();
}

// Newton's method from 0, each step halved until the loss falls. x [rows, features] f64.
at::Tensor minimize(const at::Tensor& x, const at::Tensor& y, const at::Tensor& penalty) {
  const auto rows = static_cast<double>(x.size(0));
  at::Tensor w = at::zeros({x.size(1)}, x.options());
  double loss = penalized_loss(x, y, w, penalty);
  for (int i = 0; i < kNewtonSteps; ++i) {
    const at::Tensor p = at::sigmoid(at::matmul(x, w));
    const at::Tensor gradient = at::matmul(x.t(), p - y) / rows + penalty * w;
    const at::Tensor curvature = at::matmul(x.t(), x * (p * (1 - p) / rows).unsqueeze(1)) + penalty.diag();
    at::Tensor step = at::linalg_solve(curvature, gradient);
    double next = penalized_loss(x, y, w - step, penalty);
    for (int halved = 0; next > loss && halved < 20; ++halved) {
      step = step / 2;
      next = penalized_loss(x, y, w - step, penalty);
    }
    if (!(loss - next > kConverged)) {
      break;
    }
    w = w - step;
    loss = next;
  }
  return w;
}

at::Tensor choose_ridge_and_fit(const at::Tensor& features, const at::Tensor& labels) {
  const int64_t rows = features.size(0), first = rows - rows / 4;
  double best_loss = std::numeric_limits<double>::infinity(), best = kRidges[0];
  for (const double ridge : kRidges) {
    const at::Tensor weights = fit_logistic(features.narrow(0, 0, first), labels.narrow(0, 0, first), ridge);
    const double loss = logistic_loss(features.narrow(0, first, rows - first),
                                      labels.narrow(0, first, rows - first), weights);
    if (loss < best_loss) {
      best_loss = loss;
      best = ridge;
    }
  }
  return fit_logistic(features, labels, best);
}

}  // namespace

at::Tensor fit_logistic(const at::Tensor& features, const at::Tensor& labels, double ridge) {
  constexpr double kConstant = 1e-12;  // a feature that never changes gets no weight
  const int64_t count = features.size(1);
  at::Tensor x = features.to(at::kDouble);
  const at::Tensor y = labels.to(at::kDouble);
  at::Tensor mean = x.mean(0), deviation = (x - mean).square().mean(0).sqrt();
  mean[count - 1].fill_(0);
  deviation[count - 1].fill_(1);
  const at::Tensor scale =
      at::where(deviation.gt(kConstant), deviation.reciprocal(), at::zeros_like(deviation));
  x = (x - mean) * scale;
  at::Tensor penalty = at::full({count}, ridge, x.options());
  penalty[count - 1].fill_(kConstant);  // all labels equal: the constant must stay finite
  at::Tensor w = minimize(x, y, penalty) * scale;
  w[count - 1].sub_((w * mean).sum());
  return w;
}

double logistic_loss(const at::Tensor& features, const at::Tensor& labels, const at::Tensor& weights) {
  const at::Tensor z = at::matmul(features.to(at::kDouble), weights);
  return (at::softplus(z) - labels.to(at::kDouble) * z).mean().item<double>();
}

at::Tensor fit_gate(const at::Tensor& input, const at::Tensor& log_top, const at::Tensor& log_margin,
                    const at::Tensor& agree) {
  const int64_t rows = input.size(0), hidden = input.size(1);
  const at::Tensor x = input.to(at::kDouble), one = at::ones({rows, 1}, x.options());
  const auto column = [&](const at::Tensor& values) { return values.to(at::kDouble).unsqueeze(1); };
  const at::Tensor before = choose_ridge_and_fit(at::cat({x, one}, 1), agree);
  const at::Tensor after =
      choose_ridge_and_fit(at::cat({x, column(log_top), column(log_margin), one}, 1), agree);
  const at::Tensor gate = at::zeros({2, hidden + exits::kGateExtras}, at::kFloat);
  gate[0].narrow(0, 0, hidden).copy_(before.narrow(0, 0, hidden));
  gate[0][hidden + 2].copy_(before[hidden]);
  gate[1].copy_(after);
  return gate;
}

}  // namespace ee::eval
