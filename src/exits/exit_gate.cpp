#include "ee/exits/exit_gate.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/sigmoid.h>

namespace ee::exits {
namespace {

constexpr double kSmallestSquare = 1e-12;  // a hidden state of zeros stays zeros

// [rows, hidden] x one row of the gate -> [rows]
at::Tensor score(const at::Tensor& weights, const at::Tensor& input) {
  const int64_t hidden = input.size(1);
  return at::matmul(input, weights.narrow(0, 0, hidden)) + weights[hidden + 2];
}

}  // namespace

at::Tensor gate_input(const at::Tensor& exit_hidden) {
  const at::Tensor x = exit_hidden.to(at::kFloat);
  return x * x.square().mean(-1, /*keepdim=*/true).add_(kSmallestSquare).rsqrt_();
}

at::Tensor gate_before(const at::Tensor& gate, const at::Tensor& input) {
  return at::sigmoid(score(gate[0], input));
}

at::Tensor gate_after(const at::Tensor& gate, const at::Tensor& input, const at::Tensor& log_top,
                      const at::Tensor& log_margin) {
  const at::Tensor weights = gate[1];
  const int64_t hidden = input.size(1);
  return at::sigmoid(score(weights, input) + log_top * weights[hidden] + log_margin * weights[hidden + 1]);
}

}  // namespace ee::exits
