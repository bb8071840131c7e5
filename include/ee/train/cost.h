// What a run will cost, from shapes alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ee/train/job.h"

namespace ee::train {

// What one rank of a pipeline stage holds, in bytes.
struct RankMemory {
  double backbone = 0, masters = 0, moments = 0, gradients = 0;
  double activations = 0;  // peak, estimated; or the sums of a fit, if they are more
  double program = 0;      // on the CPU: libraries with their working memory, mapped text

  double total() const { return backbone + masters + moments + gradients + activations + program; }
};

struct Cost {
  std::vector<int64_t> exit_parameters;  // of each trained exit: its own, all of them trained
  std::vector<RankMemory> memory;        // of each pipeline stage's ranks
  double flops_per_token = 0;            // forward of the backbone to the deepest exit, exits' both ways
};

Cost estimate_cost(const Job& job);

// The plan of a run for people: text, exits, stages, memory, work. What `ee-tune --dry-run` prints.
std::string describe(const Job& job, const Cost& cost);

}  // namespace ee::train
