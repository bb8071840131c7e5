// Inputs and outputs of one fused loss, for its tests.
#pragma once

#include <cmath>
#include <utility>

#include "ee/kernels/linear_cross_entropy.h"

namespace ee::kernels {

struct Problem {
  at::Tensor hidden, weight, targets, scale;

  // spread: standard deviation of the logits.
  Problem(int64_t tokens, int64_t width, int64_t vocab, double spread, at::ScalarType dtype = at::kFloat)
      : hidden(at::randn({tokens, width}).mul_(spread / std::sqrt(width)).to(dtype)),
        weight(at::randn({vocab, width}).to(dtype)),
        targets(at::randint(0, vocab, {tokens}, at::kLong)),
        scale(at::rand({tokens}).add_(0.5)) {}
};

struct Result {
  at::Tensor loss, confidence, argmax, grad_hidden, grad_weight;
};

inline Result run(const Problem& problem, const LinearCrossEntropyOptions& options) {
  LinearCrossEntropy loss(problem.hidden, problem.weight, problem.targets, options);
  const TokenStats stats = loss.forward();
  at::Tensor grad_weight = at::zeros(problem.weight.sizes());
  at::Tensor grad_hidden = loss.backward(problem.scale, grad_weight);
  return {stats.loss, stats.confidence, stats.argmax, grad_hidden, grad_weight};
}

inline double relative_error(const at::Tensor& got, const at::Tensor& expected) {
  const at::Tensor difference = got.to(at::kDouble).sub(expected);
  return difference.norm().item<double>() / (expected.norm().item<double>() + 1e-30);
}

}  // namespace ee::kernels
