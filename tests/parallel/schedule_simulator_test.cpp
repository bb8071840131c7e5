#include "ee/parallel/schedule_simulator.h"

#include <gtest/gtest.h>

namespace ee::parallel {
namespace {

const StageTimes kEven{.forward = 1, .exits = 2, .optimizer = 0, .send = 0};

TEST(Simulate, OneStageIsTheSumOfItsWork) {
  const auto result =
      simulate({{.forward = 1, .exits = 2, .optimizer = 0.5, .send = 0}}, {.steps = 3, .micro_batches = 2});
  EXPECT_DOUBLE_EQ(result.seconds, 3 * (2 * 3 + 0.5));
  EXPECT_DOUBLE_EQ(result.efficiency, 1.0);
}

TEST(Simulate, StreamingOnlyPaysToFillThePipelineOnce) {
  // The second stage starts one forward later and never waits again.
  const auto result = simulate({kEven, kEven}, {.steps = 10, .micro_batches = 2});
  EXPECT_DOUBLE_EQ(result.seconds, 1 + 20 * 3);
}

TEST(Simulate, FlushPaysInEveryStep) {
  const auto result =
      simulate({kEven, kEven}, {.schedule = PipelineSchedule::flush, .steps = 10, .micro_batches = 2});
  EXPECT_DOUBLE_EQ(result.seconds, 10 * (1 + 2 * 3));
}

TEST(Simulate, AFullLinkStopsTheSender) {
  const StageTimes fast{.forward = 1, .exits = 0, .optimizer = 0, .send = 0};
  const StageTimes slow{.forward = 10, .exits = 0, .optimizer = 0, .send = 0};
  const auto result = simulate({fast, slow}, {.steps = 1, .micro_batches = 10, .in_flight = 1});
  EXPECT_DOUBLE_EQ(result.seconds, 1 + 10 * 10);
  double last_forward = 0;
  for (const auto& span : result.spans)
    if (span.stage == 0) last_forward = span.begin;
  EXPECT_GE(last_forward, 70);  // without the bound it would begin at 9
}

// Learning from the last stage drains the pipeline at the end of each step.
TEST(Simulate, ExitsThatAreTaughtWaitForTheLastStage) {
  SimulationOptions options{.steps = 1, .micro_batches = 2, .taught = true};
  // Stage 0: forward 0, forward 1, exits 0 (its teacher is there at 2), exits 1 (at 5: forward 0, exits 0 and
  // forward 1 of the last stage).
  const auto result = simulate({kEven, kEven}, options);
  std::vector<double> begins;
  for (const auto& span : result.spans)
    if (span.stage == 0 && span.work == SimulatedSpan::Work::exits) begins.push_back(span.begin);
  EXPECT_EQ(begins, (std::vector<double>{2, 5}));
  EXPECT_DOUBLE_EQ(result.seconds, 7);
  // Without a teacher stage 0 never waits; with one micro-batch a step there is nothing to do meanwhile.
  options = {.steps = 10, .micro_batches = 1, .taught = true};
  EXPECT_DOUBLE_EQ(simulate({kEven, kEven}, options).seconds, 10 * (1 + 1 + 2));
  options.taught = false;
  EXPECT_DOUBLE_EQ(simulate({kEven, kEven}, options).seconds, 1 + 10 * 3);
}

TEST(DrawTimeline, ShowsIdleTime) {
  const auto result = simulate({kEven, kEven}, {.steps = 1, .micro_batches = 1});
  EXPECT_EQ(draw_timeline(result, 2, 8), "stage  0 |00****..|\nstage  1 |..00****|\n");
}

}  // namespace
}  // namespace ee::parallel
