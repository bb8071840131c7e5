#include "softmax.h"

#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

namespace ee::kernels {

at::Tensor target_rows(const at::Tensor& targets, int64_t rows, const std::optional<VocabularyPart>& part) {
  if (!part) return targets;
  const at::Tensor row = targets.sub(part->first);
  return row.masked_fill(row.lt(0).logical_or(row.ge(rows)), rows)
      .masked_fill_(targets.eq(kIgnoreToken), kIgnoreToken);
}

Softmax join_parts(const Softmax& own, const VocabularyPart& part, double temperature) {
  const at::Tensor floats =
      part.gather(at::stack({own.max, own.sum, own.target_logit}));  // [ranks, 3, tokens]
  const at::Tensor ids = part.gather(own.argmax.add(part.first));    // [ranks, tokens]
  const at::Tensor max = floats.select(1, 0).amax(0);
  Softmax all{.max = max,
              .sum = at::zeros_like(max),
              .log_sum = {},
              .target_logit = at::zeros_like(max),
              .argmax = ids[0]};
  for (int64_t rank = ids.size(0) - 1; rank >= 0; --rank) {  // down: the first part with the maximum wins
    const at::Tensor part_max = floats[rank][0], part_sum = floats[rank][1];
    all.sum.add_(part_max.sub(max).div_(temperature).exp_().mul_(part_sum));
    all.target_logit.add_(floats[rank][2]);
    all.argmax = at::where(part_max.eq(max), ids[rank], all.argmax);
  }
  all.log_sum = all.sum.log();
  return all;
}

at::Tensor dropped_share(const at::Tensor& sum, int64_t rows, const std::optional<VocabularyPart>& part) {
  if (!part) return sum.div(-static_cast<double>(rows)).to(at::kFloat);
  return part->gather(sum.to(at::kFloat)).sum(0).div_(-static_cast<double>(part->vocabulary));
}

}  // namespace ee::kernels
