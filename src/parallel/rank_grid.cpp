#include "ee/parallel/rank_grid.h"

#include "ee/base/error.h"

namespace ee::parallel {

namespace {

template <typename PositionAt>
std::vector<int64_t> ranks_along(const RankGrid& grid, int64_t size, PositionAt position_at) {
  std::vector<int64_t> ranks;
  for (int64_t i = 0; i < size; ++i) ranks.push_back(grid.rank_of(position_at(i)));
  return ranks;
}

}  // namespace

RankGrid::RankGrid(GridSizes sizes, int64_t rank, int64_t world_size) : sizes_(sizes), rank_(rank) {
  if (sizes.tensor < 1 || sizes.pipeline < 1 || sizes.data < 1 || sizes.world() != world_size)
    throw base::UserError(
        "parallel: tensor {} x pipeline {} x data {} needs {} processes, but {} were started; change the "
        "sizes or "
        "start {}",
        sizes.tensor, sizes.pipeline, sizes.data, sizes.world(), world_size, sizes.world());
  EE_CHECK(rank >= 0 && rank < world_size, "rank {} of {}", rank, world_size);
  position_ = position_of(rank);
}

int64_t RankGrid::rank_of(const GridPosition& position) const {
  return (position.pipeline * sizes_.data + position.data) * sizes_.tensor + position.tensor;
}

GridPosition RankGrid::position_of(int64_t rank) const {
  return {.tensor = rank % sizes_.tensor,
          .pipeline = rank / (sizes_.tensor * sizes_.data),
          .data = rank / sizes_.tensor % sizes_.data};
}

std::vector<int64_t> RankGrid::tensor_ranks() const {
  return ranks_along(*this, sizes_.tensor, [&](int64_t i) {
    return GridPosition{.tensor = i, .pipeline = position_.pipeline, .data = position_.data};
  });
}

std::vector<int64_t> RankGrid::pipeline_ranks() const {
  return ranks_along(*this, sizes_.pipeline, [&](int64_t i) {
    return GridPosition{.tensor = position_.tensor, .pipeline = i, .data = position_.data};
  });
}

std::vector<int64_t> RankGrid::data_ranks() const {
  return ranks_along(*this, sizes_.data, [&](int64_t i) {
    return GridPosition{.tensor = position_.tensor, .pipeline = position_.pipeline, .data = i};
  });
}

int64_t RankGrid::previous_stage() const {
  EE_CHECK(!is_first_stage(), "rank {} is on the first stage", rank_);
  return rank_ - sizes_.tensor * sizes_.data;
}

int64_t RankGrid::next_stage() const {
  EE_CHECK(!is_last_stage(), "rank {} is on the last stage", rank_);
  return rank_ + sizes_.tensor * sizes_.data;
}

}  // namespace ee::parallel
