#include "ee/exits/teacher.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/zeros.h>

#include "ee/kernels/soft_targets.h"

namespace ee::exits {

namespace {

// Rows of a vocabulary-split matrix, the same on all ranks. ids [tokens] -> [tokens, hidden] f32.
at::Tensor rows_of(const at::Tensor& weight, const at::Tensor& ids, const model::Backbone& backbone) {
  const auto part = backbone.ranks.vocabulary_part(backbone.config.vocab_size);
  if (!part) return at::embedding(weight, ids).to(at::kFloat);
  const at::Tensor row = ids.sub(part->first);
  const at::Tensor here = row.ge(0).logical_and(row.lt(weight.size(0)));
  at::Tensor own = at::zeros({ids.size(0), weight.size(1)}, weight.options().dtype(at::kFloat));
  if (weight.size(0) > 0) own = at::embedding(weight, row.mul(here)).to(at::kFloat).mul_(here.unsqueeze(1));
  return backbone.ranks.sum_all(own);
}

}  // namespace

Teacher make_teacher(const model::Backbone& backbone, const at::Tensor& final_hidden,
                     const at::Tensor& targets, const config::LossOptions& loss, double gradient_filter) {
  const c10::AutoGradMode no_grad(false);
  Teacher teacher;
  teacher.hidden =
      model::rms_norm(final_hidden, backbone.final_norm, backbone.config.rms_norm_eps).flatten(0, 1);
  if (loss.kl == 0) return teacher;
  const double temperature = loss.kl_temperature;
  const at::Tensor ids = targets.reshape({-1}).clamp_min(0);
  const kernels::LinearCrossEntropyOptions options{
      .temperature = temperature,
      .gradient_filter = gradient_filter,
      .part = backbone.ranks.vocabulary_part(backbone.config.vocab_size)};
  const at::Tensor hidden = teacher.hidden.to(at::kFloat);
  const auto [excess, loss_of_target] = kernels::expected_rows(teacher.hidden, backbone.head, ids, options);
  teacher.target_rows = rows_of(backbone.head, ids, backbone);
  teacher.expected_rows = backbone.ranks.sum_all(excess).add(teacher.target_rows);
  teacher.log_sum = loss_of_target.add(hidden.mul(teacher.target_rows).sum(1).div_(temperature));
  return teacher;
}

}  // namespace ee::exits
