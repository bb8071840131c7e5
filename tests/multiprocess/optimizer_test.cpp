// The optimizer between real processes: ee_optimizer_worker (optimizer_worker_main.cpp) holds what each rank
// does.
#include "ee/optim/optimizer.h"

#include <gtest/gtest.h>

#include "ee/comm/spawn.h"

namespace ee::optim {
namespace {

int run(int ranks, const std::string& scenario, const std::string& clip = "per_exit",
        const std::string& mode = "strict") {
  return comm::spawn_local(ranks, {EE_BUILD_DIR "/tests/ee_optimizer_worker", scenario, clip, mode},
                           {.grace = std::chrono::milliseconds(3000)});
}

TEST(OptimizerRanks, DataParallelEqualsOneProcessWithTheSummedGradients) {
  for (const int ranks : {2, 3})
    for (const char* clip : {"per_exit", "global", "none"})
      EXPECT_EQ(run(ranks, "data", clip), 0) << ranks << " ranks, clip " << clip;
  EXPECT_EQ(run(3, "data", "per_exit", "free"), 0) << "messages overtake each other";
}

TEST(OptimizerRanks, MomentsKnowNoRanks) {
  EXPECT_EQ(run(2, "moments"), 0);
  EXPECT_EQ(run(3, "moments"), 0);
}

TEST(OptimizerRanks, TensorParallelNormsCountEachElementOnce) {
  for (const char* clip : {"per_exit", "global"}) {
    EXPECT_EQ(run(2, "tensor", clip), 0) << clip;
    EXPECT_EQ(run(4, "tensor", clip), 0) << clip << ", with two data ranks";
  }
}

TEST(OptimizerRanks, GlobalClipLooksAtAllStages) { EXPECT_EQ(run(2, "pipeline", "global"), 0); }

TEST(OptimizerRanks, StagesDoNotWaitForEachOtherOtherwise) { EXPECT_EQ(run(2, "pipeline", "per_exit"), 0); }

TEST(OptimizerRanks, GradientThatIsNotFiniteStopsAllRanks) {
  EXPECT_EQ(run(2, "not_finite"), 0);
  EXPECT_EQ(run(4, "not_finite", "global"), 0) << "two data ranks of two stages";
}

}  // namespace
}  // namespace ee::optim
