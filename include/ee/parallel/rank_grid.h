// Which rank does what: a pure function of three sizes, tested without processes.
//
// Ranks are numbered as in Megatron: the tensor coordinate changes fastest (those ranks talk most and should
// share a machine), then data, then pipeline.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ee::parallel {

struct GridSizes {
  int64_t tensor = 1;    // ranks that split every matrix
  int64_t pipeline = 1;  // stages that split the layers
  int64_t data = 1;      // replicas that split the batch

  int64_t world() const { return tensor * pipeline * data; }
  bool operator==(const GridSizes&) const = default;
};

struct GridPosition {
  int64_t tensor = 0, pipeline = 0, data = 0;
  bool operator==(const GridPosition&) const = default;
};

class RankGrid {
 public:
  // UserError unless sizes multiply to `world_size`.
  RankGrid(GridSizes sizes, int64_t rank, int64_t world_size);

  const GridSizes& sizes() const { return sizes_; }
  int64_t rank() const { return rank_; }
  const GridPosition& position() const { return position_; }
  int64_t rank_of(const GridPosition& position) const;
  GridPosition position_of(int64_t rank) const;

  // The ranks that differ from this one in a single coordinate, in its order; this rank included.
  std::vector<int64_t> tensor_ranks() const;
  std::vector<int64_t> pipeline_ranks() const;
  std::vector<int64_t> data_ranks() const;

  bool is_first_stage() const { return position_.pipeline == 0; }
  bool is_last_stage() const { return position_.pipeline + 1 == sizes_.pipeline; }
  int64_t previous_stage() const;  // global ranks; only where there is one
  int64_t next_stage() const;

 private:
  GridSizes sizes_;
  int64_t rank_;
  GridPosition position_;
};

}  // namespace ee::parallel
