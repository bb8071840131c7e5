#include "ee/optim/adamw.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <cmath>

namespace ee::optim {

Parameter Parameter::make(std::string name, at::Tensor master) {
  EE_CHECK(master.scalar_type() == at::kFloat, "master of {} is not float32", name);
  const auto zeros = [&] { return at::zeros(master.sizes(), master.options().requires_grad(false)); };
  return {.name = std::move(name),
          .master = master,
          .gradient = zeros(),
          .first_moment = zeros(),
          .second_moment = zeros(),
          .decay = master.dim() > 1};
}

double gradient_norm(const ParameterGroup& group) {
  double squares = 0.0;
  for (const auto& parameter : group.parameters) {
    const double norm = at::linalg_vector_norm(parameter.gradient).item<double>();
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

std::vector<double> clip_factors(std::span<const double> norms, config::ClipMode mode, double clip_norm) {
  std::vector<double> factors(norms.size(), 1.0);
  if (mode == config::ClipMode::none) return factors;
  double global = 0.0;
  for (const double norm : norms) global = std::hypot(global, norm);
  for (size_t i = 0; i < norms.size(); ++i) {
    const double norm = mode == config::ClipMode::global ? global : norms[i];
    if (norm > clip_norm) factors[i] = clip_norm / norm;
  }
  return factors;
}

std::vector<double> AdamW::step(std::span<ParameterGroup> groups, double learning_rate, int64_t step) const {
  const c10::AutoGradMode no_grad(false);
  std::vector<double> norms;
  for (const auto& group : groups) {
    norms.push_back(gradient_norm(group));
    if (!std::isfinite(norms.back()))
      throw base::UserError(
          "the gradient of the exit at layer {} is not finite at step {}; lower optimizer.lr, or look for "
          "broken "
          "weights with ee-convert verify",
          group.layer, step + 1);
  }
  const auto factors = clip_factors(norms, options_.clip, options_.clip_norm);
  for (size_t i = 0; i < groups.size(); ++i) update(groups[i], learning_rate, step, factors[i]);
  return norms;
}

void AdamW::update(ParameterGroup& group, double learning_rate, int64_t step, double factor) const {
  std::optional<at::Tensor> divisor;  // of the gradients
  if (factor != 1.0) divisor = at::full({}, 1.0 / factor, at::kFloat);
  for (auto& p : group.parameters) {
    at::_fused_adamw_({p.master}, {p.gradient}, {p.first_moment}, {p.second_moment}, {},
                      {at::full({}, static_cast<double>(step + 1), at::kFloat)}, learning_rate,
                      options_.beta1, options_.beta2, p.decay ? options_.weight_decay : 0.0, options_.eps,
                      /*amsgrad=*/false,
                      /*maximize=*/false, divisor);
    p.gradient.zero_();
  }
}

}  // namespace ee::optim
