#include "ee/train/stages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/tiny_model.h"

namespace ee::train {
using config::ExitKind, config::ExitPosition, config::ExitSpec, config::HeadKind;

namespace {

const std::vector<ExitSpec> kExits = {
    {.layer = 1, .kind = ExitKind::norm, .position = ExitPosition::before},  // depth 0
    {.layer = 2, .kind = ExitKind::norm, .head = HeadKind::own},
    {.layer = 3, .kind = ExitKind::layer, .position = ExitPosition::before},  // depth 2
    {.layer = 4, .kind = ExitKind::mlp, .head = HeadKind::own},
    {.layer = 5, .kind = ExitKind::mlp}};

std::vector<Stage> plan(int64_t pipeline, const std::vector<ExitSpec>& exits = kExits, int64_t loaded = 6) {
  config::TuneOptions options;
  options.batch.sequence_length = 32;
  options.parallel.pipeline = pipeline;
  return plan_run(test::tiny_config(), exits, options, loaded);
}

ExitSpec norm_exit(int64_t layer, HeadKind head, ExitPosition position = ExitPosition::after) {
  return {.layer = layer, .kind = ExitKind::norm, .position = position, .head = head};
}

}  // namespace

TEST(PlanRun, StagesFollowEachOtherUpToTheDeepestExit) {
  for (int64_t pipeline = 1; pipeline <= 5; ++pipeline) {
    const auto stages = plan(pipeline);
    ASSERT_EQ(std::ssize(stages), pipeline);
    int64_t next = 1;
    double share = 0;
    for (const Stage& stage : stages) {
      EXPECT_EQ(stage.first_layer, next);
      EXPECT_GE(stage.last_layer, stage.first_layer);
      EXPECT_EQ(stage.is_first, &stage == &stages.front());
      EXPECT_EQ(stage.is_last, &stage == &stages.back());
      next = stage.last_layer + 1;
      share += stage.share;
    }
    EXPECT_EQ(next, 6) << "layers 1 to 5";
    EXPECT_NEAR(share, 1.0, 1e-12);
  }
}

TEST(PlanRun, ExitsAreOnTheStageThatHasTheirDepth) {
  for (int64_t pipeline = 1; pipeline <= 5; ++pipeline) {
    size_t next = 0;
    for (const Stage& stage : plan(pipeline)) {
      EXPECT_EQ(stage.first_exit, next);
      for (size_t i = 0; i < kExits.size(); ++i) {
        const bool here = i >= stage.first_exit && i < stage.first_exit + stage.exit_count;
        const int64_t depth = std::max<int64_t>(1, kExits[i].depth());  // the embedding is the first stage's
        EXPECT_EQ(here, depth >= stage.first_layer && depth <= stage.last_layer)
            << "exit " << i << " of " << pipeline << " stages";
      }
      next += stage.exit_count;
    }
    EXPECT_EQ(next, kExits.size());
  }
}

TEST(PlanRun, ExitAtTheEmbeddingAloneStillHasAStage) {
  const auto stages = plan(1, {norm_exit(1, HeadKind::own, ExitPosition::before)}, 0);
  ASSERT_EQ(stages.size(), 1u);
  EXPECT_EQ(stages[0].exit_count, 1u);
  EXPECT_EQ(stages[0].last_layer, 1);
}

TEST(PlanRun, LayersBehindTheLastExitAreTheLastStages) {
  for (const int64_t loaded : {0, 5, 6}) {
    const auto stages = plan(3, kExits, loaded);
    EXPECT_EQ(stages[0].loaded_layers, stages[0].last_layer);
    EXPECT_EQ(stages[1].loaded_layers, stages[1].last_layer);
    EXPECT_EQ(stages[2].last_layer, 5);
    EXPECT_EQ(stages[2].loaded_layers, std::max<int64_t>(5, loaded));
  }
}

TEST(PlanRun, HeadIsWhereItIsShared) {
  for (const int64_t loaded : {5, 6})
    for (int64_t pipeline = 1; pipeline <= 5; ++pipeline)
      for (const Stage& stage : plan(pipeline, kExits, loaded)) {
        bool expected = stage.is_last && loaded == 6;  // the final layer's own opinion
        for (size_t i = 0; i < stage.exit_count; ++i)
          expected |= kExits[stage.first_exit + i].head == HeadKind::shared;
        EXPECT_EQ(stage.needs_head, expected) << pipeline << " stages, from layer " << stage.first_layer;
      }
  const auto own = plan(2, {norm_exit(2, HeadKind::own), norm_exit(4, HeadKind::own)}, 4);
  EXPECT_FALSE(own[0].needs_head);
  EXPECT_FALSE(own[1].needs_head);
}

TEST(PlanRun, StageMayHaveNoExits) {
  const auto stages = plan(2, {norm_exit(6, HeadKind::shared)});
  EXPECT_EQ(stages[0].exit_count, 0u);
  EXPECT_FALSE(stages[0].needs_head);
  EXPECT_EQ(stages[1].exit_count, 1u);
  EXPECT_EQ(stages[1].first_exit, 0u);
}

TEST(PlanRun, MoreStagesThanLayersAreRefused) {
  EXPECT_NO_THROW(plan(5));
  EXPECT_THROW(plan(6), base::UserError);
}

}  // namespace ee::train
