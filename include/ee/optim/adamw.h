// AdamW on the exits' float32 master weights, with gradient clipping.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ee/config/tune_options.h"

namespace ee::optim {

// One trained tensor; all of `shape`.
struct Parameter {
  std::string name;                        // its name in exits.safetensors
  at::Tensor master;                       // f32
  at::Tensor gradient;                     // f32; summed over the micro-batches of a step
  at::Tensor first_moment, second_moment;  // f32
  bool decay = false;                      // takes part in weight decay

  // Moments and gradient zero. Matrices decay; norm weights and biases do not.
  static Parameter make(std::string name, at::Tensor master);
};

// The parameters of one exit: what `clip: per_exit` clips together.
struct ParameterGroup {
  int64_t layer = 0;
  std::vector<Parameter> parameters;
};

// The 2-norm of all gradients of a group.
double gradient_norm(const ParameterGroup& group);

// By what the gradients of each group are to be multiplied so that norms (one a group) obey the limit.
std::vector<double> clip_factors(std::span<const double> norms, config::ClipMode mode, double clip_norm);

// Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), bias-corrected:
//   w -= lr * (weight_decay * w + m_hat / (sqrt(v_hat) + eps)).
// Elementwise in a fixed order: the same numbers on every run and for any number of threads.
class AdamW {
 public:
  explicit AdamW(const config::OptimizerOptions& options) : options_(options) {}

  // Clips the gradients, updates the masters in place and sets the gradients to zero. `step` counts from 0
  // and is all the optimizer remembers besides the moments. Returns the norm of each group before clipping.
  // UserError when a norm is not finite: nothing has been changed then.
  std::vector<double> step(std::span<ParameterGroup> groups, double learning_rate, int64_t step) const;

 private:
  void update(ParameterGroup& group, double learning_rate, int64_t step, double factor) const;

  config::OptimizerOptions options_;
};

}  // namespace ee::optim
