#include "ee/infer/model.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "ee/checkpoint/attach.h"
#include "ee/parallel/stage_plan.h"
#include "support/model_on_disk.h"

namespace ee::infer {
namespace {

namespace fs = std::filesystem;
using config::ExitKind;
using config::HeadKind;

struct ModelOnDisk : ::testing::Test {
  ModelOnDisk() {
    fs::remove_all(root);
    test::write_tiny_model(root / "plain");
    checkpoint::attach_exits(
        {.source = root / "plain",
         .output = root / "model",
         .exits = {{.layer = 1, .kind = ExitKind::norm, .position = config::ExitPosition::before},
                   {.layer = 2, .kind = ExitKind::mlp, .head = HeadKind::own},
                   {.layer = 5, .kind = ExitKind::layer, .head = HeadKind::own}},
         .dtype = {}});
  }
  ~ModelOnDisk() override { fs::remove_all(root); }

  const fs::path root = fs::path(::testing::TempDir()) / ("ee-infer-model-" + std::to_string(::getpid()));
};

TEST_F(ModelOnDisk, StagesTogetherHaveEachLayerAndExitOnce) {
  const Model whole = load_model({.folder = root / "model", .exits = {}});
  for (const int64_t stages : {1, 2, 3, 6}) {
    int64_t layers = 0, exits = 0;
    for (int64_t stage = 0; stage < stages; ++stage) {
      const Model part =
          load_model({.folder = root / "model", .exits = {}, .stage = stage, .stages = stages});
      EXPECT_EQ(part.backbone.first_layer, layers + 1);
      layers = part.backbone.last_layer();
      EXPECT_EQ(part.backbone.embedding.defined(), stage == 0);
      ASSERT_EQ(part.exits.size(), whole.exits.size());
      bool shares_head = false;
      for (size_t i = 0; i < whole.exits.size(); ++i) {
        EXPECT_EQ(part.exits[i].spec, whole.exits[i].spec);
        const bool mine = part.exits[i].head.defined();
        EXPECT_EQ(mine, parallel::is_on_stage(part.exits[i].spec, part.backbone.first_layer, layers));
        shares_head |= mine && part.exits[i].spec.head == HeadKind::shared;
        exits += mine;
      }
      EXPECT_EQ(part.backbone.head.defined(), shares_head || stage + 1 == stages);
    }
    EXPECT_EQ(layers, 6);
    EXPECT_EQ(exits, 3);
  }
}

TEST_F(ModelOnDisk, StagesAreCutByTheWeightsThatDecodingReads) {
  // The final head is 257 x 32 and a layer about as large: with it the second stage has fewer layers.
  const Model first = load_model({.folder = root / "plain", .exits = {}, .stage = 0, .stages = 2});
  EXPECT_GT(first.backbone.layers.size(), 3u);
}

TEST_F(ModelOnDisk, SizesThatDoNotFitAreRefusedBeforeLoading) {
  const LoadRequest request{.folder = root / "model", .exits = {}};
  EXPECT_EQ(check_model(request, {.tensor = 2, .pipeline = 6}).layers, 6);
  EXPECT_THROW(check_model(request, {.pipeline = 7}), base::UserError);
  EXPECT_THROW(check_model(request, {.tensor = 3}), base::UserError);
  EXPECT_THROW(check_model({.folder = root / "model", .exits = {3}}, {}), base::UserError);
  EXPECT_THROW(check_model({.folder = root / "plain", .exits = {2}}, {}), base::UserError);
}

}  // namespace
}  // namespace ee::infer
