// How a new exit gets its first weights.
#pragma once

#include <cstdint>

#include "ee/exits/exit_head.h"

namespace ee::exits {

// An exit for `backbone` with its own tensors in the backbone's dtype and on its device, shared ones bound.
//   copy    mlp: the exit layer's MLP; layer: the model's last decoder layer, so the backbone must hold all
//           layers; norm: the final norm; head: the output embedding. Copies, never aliases.
//   random  weights normal(0, 0.02), those of o_proj and down_proj further divided by sqrt(2 * layer)
//   (EE-LLM's
//           scaled initialization), biases 0, norms 1. The same numbers for the same seed and layer.
ExitHead make_exit(const model::Backbone& backbone, const config::ExitSpec& spec, uint64_t seed);

}  // namespace ee::exits
