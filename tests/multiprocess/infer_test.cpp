// Generation between real processes: ee_infer_worker (infer_worker_main.cpp) holds what each rank does.
#include <gtest/gtest.h>

#include <cstdlib>

#include "ee/checkpoint/attach.h"
#include "ee/comm/spawn.h"
#include "support/model_on_disk.h"

namespace ee::infer {
namespace {

namespace fs = std::filesystem;
using config::ExitKind;
using config::ExitPosition;
using config::HeadKind;
using config::InitKind;
using config::NormKind;

class InferGrid : public ::testing::Test {
 protected:
  // Six layers. Every kind, both positions, two exits at one depth, one in front of the first layer and one
  // behind the last.
  InferGrid() : folder_(fs::path(::testing::TempDir()) / fmt::format("ee-infer-grid-{}", ::getpid())) {
    fs::remove_all(folder_);
    test::write_tiny_model(folder_ / "plain");
    checkpoint::attach_exits(
        {.source = folder_ / "plain",
         .output = folder_ / "model",
         .exits = {{.layer = 1, .kind = ExitKind::norm, .position = ExitPosition::before},
                   {.layer = 2, .kind = ExitKind::embedding, .norm = NormKind::none, .temperature = 2.0},
                   {.layer = 3, .kind = ExitKind::mlp, .head = HeadKind::own},
                   {.layer = 4, .kind = ExitKind::layer, .position = ExitPosition::before},
                   {.layer = 5, .kind = ExitKind::layer, .norm = NormKind::shared},
                   {.layer = 6, .kind = ExitKind::norm, .head = HeadKind::own}},
         .dtype = {}});
  }
  ~InferGrid() override { fs::remove_all(folder_); }

  int run(const std::string& scenario, int tensor, int pipeline) const {
    ::setenv("EE_COMM_STRICT", "1", 1);
    return comm::spawn_local(tensor * pipeline,
                             {EE_BUILD_DIR "/tests/ee_infer_worker", scenario, (folder_ / "model").string(),
                              std::to_string(tensor), std::to_string(pipeline)},
                             {.grace = std::chrono::milliseconds(3000)});
  }

  const fs::path folder_;
};

TEST_F(InferGrid, TensorRanksMakeTheTokensOfOneProcess) { EXPECT_EQ(run("equal", 2, 1), 0); }

TEST_F(InferGrid, StagesMakeTheTokensOfOneProcess) {
  EXPECT_EQ(run("equal", 1, 2), 0);
  EXPECT_EQ(run("equal", 1, 3), 0);
}

TEST_F(InferGrid, StagesOfTensorRanksMakeTheTokensOfOneProcess) { EXPECT_EQ(run("equal", 2, 2), 0); }

TEST_F(InferGrid, TextsEndAsInOneProcess) {
  EXPECT_EQ(run("ends", 1, 3), 0);
  EXPECT_EQ(run("ends", 2, 2), 0);
}

TEST_F(InferGrid, EachStageHasTheKvCacheOfAFullForwardPass) {
  EXPECT_EQ(run("caches", 1, 2), 0);
  EXPECT_EQ(run("caches", 1, 3), 0);
}

}  // namespace
}  // namespace ee::infer
