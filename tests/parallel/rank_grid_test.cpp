#include "ee/parallel/rank_grid.h"

#include <gtest/gtest.h>

#include <set>

#include "ee/base/error.h"

namespace ee::parallel {

TEST(RankGrid, TensorRanksAreNeighbours) {
  const RankGrid grid({.tensor = 2, .pipeline = 2, .data = 2}, 5, 8);
  EXPECT_EQ(grid.position(), (GridPosition{.tensor = 1, .pipeline = 1, .data = 0}));
  EXPECT_EQ(grid.tensor_ranks(), (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(grid.data_ranks(), (std::vector<int64_t>{5, 7}));
  EXPECT_EQ(grid.pipeline_ranks(), (std::vector<int64_t>{1, 5}));
  EXPECT_TRUE(grid.is_last_stage());
  EXPECT_EQ(grid.previous_stage(), 1);
}

TEST(RankGrid, EveryPositionIsOneRank) {
  const GridSizes sizes{.tensor = 2, .pipeline = 3, .data = 4};
  std::set<int64_t> seen;
  for (int64_t rank = 0; rank < sizes.world(); ++rank) {
    const RankGrid grid(sizes, rank, sizes.world());
    EXPECT_EQ(grid.rank_of(grid.position()), rank);
    seen.insert(grid.rank_of(grid.position_of(rank)));
    if (!grid.is_last_stage()) {
      EXPECT_EQ(RankGrid(sizes, grid.next_stage(), sizes.world()).previous_stage(), rank);
    }
  }
  EXPECT_EQ(seen.size(), 24u);
}

TEST(RankGrid, RefusesSizesThatDoNotMultiplyToTheWorld) {
  EXPECT_THROW(RankGrid({.tensor = 2, .pipeline = 2, .data = 1}, 0, 8), base::UserError);
  EXPECT_THROW(RankGrid({.tensor = 0, .pipeline = 1, .data = 1}, 0, 1), base::UserError);
}

}  // namespace ee::parallel
