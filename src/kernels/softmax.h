// What one pass over the output embedding leaves of every token, and how the passes of ranks that hold a part
// of the vocabulary each become one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "ee/kernels/linear_cross_entropy.h"

namespace ee::kernels {

// All [tokens] f32 but argmax i64; logits before the division by the temperature.
struct Softmax {
  at::Tensor max;           // -inf over no rows
  at::Tensor sum, log_sum;  // sum of exp((logit - max) / temperature), and its logarithm
  at::Tensor target_logit;  // 0 where the target is kIgnoreToken or in another part
  at::Tensor argmax;
};

// targets [tokens] -> the rows of the weight (it has `rows`) that they are; `rows`, one past the last, where
// the target is in another part; kIgnoreToken stays.
at::Tensor target_rows(const at::Tensor& targets, int64_t rows, const std::optional<VocabularyPart>& part);

// The softmax over the whole vocabulary from those over the parts, the same bits on all ranks. Gathers twice.
Softmax join_parts(const Softmax& own, const VocabularyPart& part, double temperature);

// What the filter dropped of each token's gradients, as the share of one row of the vocabulary: [tokens] f32.
// sum [tokens] is over the gradients that were kept here; those of all rows would add up to 0. Gathers once
// if there are parts.
at::Tensor dropped_share(const at::Tensor& sum, int64_t rows, const std::optional<VocabularyPart>& part);

}  // namespace ee::kernels
