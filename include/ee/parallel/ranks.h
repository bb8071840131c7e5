// The process groups of one rank: its line in each direction of the grid.
#pragma once

#include <optional>

#include "ee/comm/group.h"
#include "ee/comm/world.h"
#include "ee/parallel/rank_grid.h"
#include "ee/parallel/tensor_ranks.h"

namespace ee::parallel {

struct Ranks {
  // Returns when all ranks have called it. kv_copies: tensor ranks that share a key/value head (copies_of()).
  Ranks(comm::World& world, GridSizes sizes, bool sequence, int64_t kv_copies);

  bool is_first() const { return grid.rank() == 0; }  // decides and writes files
  // The rank that has seen every stage's results of a step: it tells about them.
  bool reports() const {
    return grid.is_last_stage() && grid.position().tensor == 0 && grid.position().data == 0;
  }

  RankGrid grid;
  at::Device device;  // of the world
  TensorRanks tensor;
  comm::Group all, stage, pipeline, data;  // stage: every rank of this pipeline stage
  std::optional<comm::Group> kv;  // tensor ranks with the same key/value head; only if there are such
};

}  // namespace ee::parallel
