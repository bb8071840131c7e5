// One exit's loss and gradient on one micro-batch, and the statistics of an exit against the final layer.
#pragma once

#include "ee/config/tune_options.h"
#include "ee/exits/exit_head.h"
#include "ee/exits/teacher.h"
#include "ee/kernels/linear_cross_entropy.h"

namespace ee::exits {

struct ExitLossOptions {
  config::LossOptions loss = {};  // terms
  config::TokenWeights token_weights = config::TokenWeights::uniform;
  double gradient_filter = 0.0;
  // Exit weight / tokens with a target in the whole step, of which this micro-batch is a part.
  double scale = 1.0;
};

// Runs the exit forward and backward on `input`: adds to the .grad of the exit's parameters
// d(scale * sum over tokens of [token weight *] loss), where a token's loss is
//   cross_entropy * CE(next token; exit's temperature)
//   + kl * T^2 KL(final layer || exit; both at T = kl_temperature)        (Hinton et al. 2015: T^2 keeps its
//   weight)
//   + hidden * mean over the width of (exit's - final layer's hidden state in front of the output
//   embedding)^2.
// Everything but the gradients is freed on return. targets [batch, seq] i64, kernels::kIgnoreToken where
// there is none; sums are over the others, so parts of a batch add up to the whole however it is cut. The
// confidence weight is the exit's largest probability at its temperature, detached and not normalized
// (EE-Tuning, dynamic token-wise loss weighting). Returns the sum of the cross entropy without weights and
// scale, comparable to evaluation, whatever the terms; 0 and no gradient when no token has a target. teacher:
// of this micro-batch, if a term asks for it. No gradient goes into the input, unless `input_gradient` asks
// for it: then it is d(the same) / d input.
double accumulate_exit_gradient(const model::Backbone& backbone, ExitHead& exit, const ExitInput& input,
                                const at::Tensor& targets, const ExitLossOptions& options,
                                const Teacher* teacher = nullptr, ExitInput* input_gradient = nullptr);

// No gradient: per-token loss, confidence and argmax of the exit.
kernels::TokenStats exit_stats(const model::Backbone& backbone, const ExitHead& exit, const ExitInput& input,
                               const at::Tensor& targets);

}  // namespace ee::exits
