// The final layer as the teacher of all exits on one micro-batch: computed once, never as logits.
#pragma once

#include <ATen/core/Tensor.h>

#include "ee/config/tune_options.h"
#include "ee/model/backbone.h"

namespace ee::exits {

// All tokens on every tensor-parallel rank.
struct Teacher {
  at::Tensor hidden;  // [tokens, hidden]: behind the final norm
  at::Tensor
      target_rows;  // [tokens, hidden] f32: the output embedding's row of each target; row 0 without one
  at::Tensor expected_rows;  // [tokens, hidden] f32: its rows weighted by the teacher's distribution
  at::Tensor log_sum;        // [tokens] f32: of exp(logits / kl_temperature)
};

// final_hidden [batch, seq, hidden], all tokens: behind the last layer, in front of the norm. targets
// [batch, seq] i64. Without a divergence in the loss only `hidden` is filled. The backbone must hold its
// head.
Teacher make_teacher(const model::Backbone& backbone, const at::Tensor& final_hidden,
                     const at::Tensor& targets, const config::LossOptions& loss, double gradient_filter);

}  // namespace ee::exits
