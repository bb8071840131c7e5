// How a pipeline's layers are divided: by cost, because an exit with a large vocabulary costs several layers.
#pragma once

#include <cstdint>
#include <vector>

#include "ee/config/exit_spec.h"

namespace ee::parallel {

// Cost of the work at one depth, in any one unit (FLOPs, seconds) per micro-batch.
struct DepthCost {
  double layer = 0;  // the decoder layer that ends at this depth; depth 0: the embedding
  double exits = 0;  // forward and backward of the exits that listen at this depth
  double total() const { return layer + exits; }
};

struct StagePlan {
  int64_t first_layer = 0, last_layer = 0;  // 1-based, inclusive; never empty
  double forward = 0;                       // cost of its layers
  double exits = 0;                         // cost of its exits
  double total() const { return forward + exits; }
};

// Splits depths 1..costs.size()-1 into `stages` consecutive ranges whose dearest one is as cheap as possible.
// Depth 0 belongs to the first stage. UserError: more stages than layers.
std::vector<StagePlan> plan_stages(const std::vector<DepthCost>& costs, int64_t stages);

// Whether an exit belongs to the stage of these layers. One in front of layer 1 is the first stage's.
bool is_on_stage(const config::ExitSpec& exit, int64_t first_layer, int64_t last_layer);

}  // namespace ee::parallel
