#include "ee/exits/teacher.h"

#include "ee/kernels/soft_targets.h"

namespace ee::exits {

Teacher make_teacher(const model::Backbone& backbone, const at::Tensor& final_hidden,
                     const at::Tensor& targets, const config::LossOptions& loss, double gradient_filter) {
  const c10::AutoGradMode no_grad(false);
  Teacher teacher;
  teacher.hidden =
      model::rms_norm(final_hidden, backbone.final_norm, backbone.config.rms_norm_eps).flatten(0, 1);
  if (loss.kl == 0) return teacher;
  const parallel::TensorRanks& ranks = backbone.ranks;
  const double temperature = loss.kl_temperature;
  const at::Tensor ids = targets.reshape({-1}).clamp_min(0);
  const kernels::LinearCrossEntropyOptions options{.temperature = temperature,
                                                   .gradient_filter = gradient_filter,
                                                   .part = ranks.vocabulary_part(backbone.config.vocab_size)};
  const at::Tensor hidden = teacher.hidden.to(at::kFloat);
  const auto [excess, loss_of_target] = kernels::expected_rows(teacher.hidden, backbone.head, ids, options);
  teacher.target_rows =
      ranks.sum_all(ranks.vocabulary_rows(backbone.head, ids, backbone.config.vocab_size).to(at::kFloat));
  teacher.expected_rows = ranks.sum_all(excess).add(teacher.target_rows);
  teacher.log_sum = loss_of_target.add(hidden.mul(teacher.target_rows).sum(1).div_(temperature));
  return teacher;
}

}  // namespace ee::exits
