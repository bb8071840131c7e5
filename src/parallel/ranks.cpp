#include "ee/parallel/ranks.h"

#include <fmt/format.h>

#include <numeric>

namespace ee::parallel {

namespace {

std::vector<int> to_ints(const std::vector<int64_t>& ranks) { return {ranks.begin(), ranks.end()}; }

comm::Group line(comm::World& world, const char* name, const std::vector<int64_t>& ranks) {
  return world.make_group(fmt::format("{}.{}", name, ranks.front()), to_ints(ranks));
}

std::vector<int64_t> everyone(int64_t size) {
  std::vector<int64_t> ranks(static_cast<size_t>(size));
  std::iota(ranks.begin(), ranks.end(), int64_t{0});
  return ranks;
}

std::vector<int64_t> stage_ranks(const RankGrid& grid) {
  const int64_t size = grid.sizes().tensor * grid.sizes().data;
  std::vector<int64_t> ranks = everyone(size);
  for (int64_t& rank : ranks) rank += grid.position().pipeline * size;
  return ranks;
}

std::vector<int64_t> kv_ranks(const RankGrid& grid, int64_t copies) {
  std::vector<int64_t> ranks;
  for (const int64_t rank : grid.tensor_ranks())
    if (grid.position_of(rank).tensor / copies == grid.position().tensor / copies) ranks.push_back(rank);
  return ranks;
}

}  // namespace

Ranks::Ranks(comm::World& world, GridSizes sizes, bool sequence, int64_t kv_copies)
    : grid(sizes, world.rank(), world.size()),
      device(world.device()),
      tensor(line(world, "tensor", grid.tensor_ranks()), sequence),
      all(line(world, "all", everyone(world.size()))),
      stage(line(world, "stage", stage_ranks(grid))),
      pipeline(line(world, "pipeline", grid.pipeline_ranks())),
      data(line(world, "data", grid.data_ranks())) {
  if (kv_copies > 1) kv = line(world, "kv", kv_ranks(grid, kv_copies));
}

}  // namespace ee::parallel
