// What a run will cost, from shapes alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ee/train/job.h"

namespace ee::train {

struct Cost {
  int64_t backbone_parameters = 0;       // of the layers that are loaded
  std::vector<int64_t> exit_parameters;  // of each trained exit: its own, all of them trained
  double backbone_bytes = 0, master_bytes = 0, moment_bytes = 0, gradient_bytes = 0;
  double activation_bytes = 0;  // peak, estimated
  double flops_per_token = 0;   // forward of the backbone to the deepest exit, exits' both ways

  double total_bytes() const {
    return backbone_bytes + master_bytes + moment_bytes + gradient_bytes + activation_bytes;
  }
};

Cost estimate_cost(const Job& job);

// The plan of a run for people: text, exits, memory, work. What `ee-tune --dry-run` prints.
std::string describe(const Job& job, const Cost& cost);

}  // namespace ee::train
