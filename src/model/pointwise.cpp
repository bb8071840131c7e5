#include "pointwise.h"

#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>

#include "ee/model/backbone.h"
#include "operators.h"
#include "pointwise_cpu.h"

namespace ee::model {

bool needs_autograd(std::initializer_list<at::Tensor> tensors) {
  return c10::GradMode::is_enabled() &&
         std::any_of(tensors.begin(), tensors.end(),
                     [](const at::Tensor& tensor) { return tensor.requires_grad(); });
}

at::Tensor rotate(at::Tensor x, const RopeRows& rope) {
  if (!needs_autograd({x}) && fused::takes(x)) {
    fused::rotate(x, rope);
    return x;
  }
  const int64_t half = x.size(-1) / 2;
  const at::Tensor c = rope.cos.unsqueeze(1), s = rope.sin.unsqueeze(1);  // [seq, 1, head_dim / 2]
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor first = wide.narrow(-1, 0, half);
  const at::Tensor second = wide.narrow(-1, half, half);
  return at::cat({first * c - second * s, second * c + first * s}, -1).to(x.scalar_type());
}

at::Tensor silu_times(at::Tensor gate, const at::Tensor& up) {
  if (needs_autograd({gate, up})) {
    return at::silu(gate) * up;
  }
  if (fused::takes(gate) && fused::takes(up)) {
    fused::silu_times(gate, up);
    return gate;
  }
  return at::silu_(gate).mul_(up);
}

at::Tensor add_residual(at::Tensor branch, const at::Tensor& residual) {
  return needs_autograd({branch, residual}) ? branch + residual : branch.add_(residual);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!needs_autograd({x, weight}) && fused::takes(x) && fused::takes(weight) &&
      x.scalar_type() == weight.scalar_type()) {
    return fused::rms_norm(x, weight, eps);
  }
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = (wide * wide).mean(-1, /*keepdim=*/true).add(eps).rsqrt();
  return (wide * scale).to(x.scalar_type()) * weight;
}

}  // namespace ee::model
