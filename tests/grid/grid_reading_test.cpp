// No rank reads more than its share of the model: ee_grid_worker (grid_worker_main.cpp) counts.
#include <gtest/gtest.h>

#include "grid/grid_fixture.h"

namespace ee {

class GridReading : public Grid {
 protected:
  void expect_shares(int tensor, int pipeline, int data, double validation_fraction) const {
    auto changes = grid(tensor, pipeline, data);
    changes["steps"] = 1;
    changes["data"] = {{"validation_fraction", validation_fraction}};
    changes["evaluation"] = {{"every_steps", 0}};
    configure(changes);
    EXPECT_EQ(comm::spawn_local(tensor * pipeline * data,
                                {EE_BUILD_DIR "/tests/ee_grid_worker", (folder_ / "tune.json").string()}),
              0)
        << tensor << " x " << pipeline << " x " << data;
    for (const char* name : {"out", "out.checkpoints", "out.logs", "out.cache"})
      std::filesystem::remove_all(folder_ / name);
  }
};

TEST_F(GridReading, EachRankReadsItsSlicesOfItsLayersOnly) {
  expect_shares(1, 1, 1, 0.0);  // nothing behind layer 4, the last exit
  expect_shares(2, 2, 1, 0.1);
  expect_shares(4, 1, 1, 0.1);
  expect_shares(1, 2, 2, 0.0);
}

}  // namespace ee
