#include "ee/kernels/soft_targets.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "ee/base/error.h"

namespace ee::kernels {

// The gradient of cross entropy is (expected row - target's row) / temperature.
ExpectedRows expected_rows(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                           const LinearCrossEntropyOptions& options) {
  const c10::NoGradGuard no_grad;
  LinearCrossEntropy loss(hidden.to(at::kFloat), weight, targets, options);
  const at::Tensor losses = loss.forward().loss;
  const at::Tensor rows = loss.backward(at::ones({hidden.size(0)}, losses.options()));
  return {.excess = rows.mul(options.temperature), .loss = losses};
}

at::Tensor expected_rows(const TeacherLogits& teacher, const at::Tensor& student_weight,
                         const at::Tensor& student_hidden, const at::Tensor& token_scale,
                         const at::Tensor& weight_grad, int64_t vocab_chunk) {
  const c10::NoGradGuard no_grad;
  EE_CHECK(teacher.weight.sizes() == student_weight.sizes(), "a teacher and a student of other vocabularies");
  const auto type = teacher.hidden.scalar_type();
  const at::Tensor scaled = student_hidden.to(at::kFloat).mul(token_scale.unsqueeze(1));  // [tokens, hidden]
  at::Tensor rows = at::zeros(student_hidden.sizes(), scaled.options());
  for (int64_t first = 0; first < student_weight.size(0); first += vocab_chunk) {
    const int64_t count = std::min(vocab_chunk, student_weight.size(0) - first);
    at::Tensor p = at::linear(teacher.hidden, teacher.weight.narrow(0, first, count).to(type)).to(at::kFloat);
    p.div_(teacher.temperature).sub_(teacher.log_sum.unsqueeze(1)).exp_();  // [tokens, count]
    rows.addmm_(p, student_weight.narrow(0, first, count).to(at::kFloat));
    if (weight_grad.defined())
      weight_grad.narrow(0, first, count).addmm_(p.t(), scaled, /*beta=*/1, /*alpha=*/-1);
  }
  return rows;
}

}  // namespace ee::kernels
