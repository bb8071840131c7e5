#include "ee/optim/schedules.h"

#include <gtest/gtest.h>

namespace ee::optim {
using config::DecayShape;
using config::WeightShape;

TEST(LearningRate, WarmsUpToThePeak) {
  const LearningRate rate({.lr = 1.0}, {.warmup_steps = 4, .decay = DecayShape::constant}, 100);
  EXPECT_DOUBLE_EQ(rate.at(0), 0.25);
  EXPECT_DOUBLE_EQ(rate.at(3), 1.0);
  EXPECT_DOUBLE_EQ(rate.at(99), 1.0);
}

TEST(LearningRate, WarmupFractionIsOfAllSteps) {
  const LearningRate rate({.lr = 1.0}, {.warmup_fraction = 0.1, .decay = DecayShape::constant}, 50);
  EXPECT_EQ(rate.warmup_steps(), 5);
  EXPECT_DOUBLE_EQ(rate.at(1), 0.4);
}

TEST(LearningRate, LinearDecayAtKeyPoints) {
  const LearningRate rate({.lr = 1.0}, {.warmup_steps = 20, .decay = DecayShape::linear, .min_lr = 0.2}, 100);
  EXPECT_DOUBLE_EQ(rate.at(20), 1.0);
  EXPECT_DOUBLE_EQ(rate.at(60), 0.6);
  EXPECT_DOUBLE_EQ(rate.at(100), 0.2);
  EXPECT_DOUBLE_EQ(rate.at(1000), 0.2);
}

TEST(LearningRate, CosineDecayAtKeyPoints) {
  const LearningRate rate({.lr = 1.0}, {.decay = DecayShape::cosine, .min_lr = 0.1}, 100);
  EXPECT_DOUBLE_EQ(rate.at(0), 1.0);
  EXPECT_NEAR(rate.at(25), 0.1 + 0.9 * 0.853553, 1e-6);  // (1 + cos(pi/4)) / 2
  EXPECT_NEAR(rate.at(50), 0.55, 1e-12);
  EXPECT_NEAR(rate.at(100), 0.1, 1e-12);
}

TEST(LearningRate, WarmupAsLongAsTheRunNeverDecays) {
  const LearningRate rate({.lr = 1.0}, {.warmup_steps = 10, .decay = DecayShape::cosine}, 10);
  EXPECT_DOUBLE_EQ(rate.at(9), 1.0);
}

TEST(ExitWeightFactor, ConstantIsOne) {
  EXPECT_EQ(exit_weight_factor({.shape = WeightShape::constant, .warmup_fraction = 0.5}, 0, 10), 1.0);
}

TEST(ExitWeightFactor, LinearWarmupAndCooldownAtKeyPoints) {
  const config::WeightScheduleOptions options{.shape = WeightShape::linear,
                                              .warmup_fraction = 0.2,
                                              .cooldown_fraction = 0.1,
                                              .initial = 0.5,
                                              .final = 0.1};
  EXPECT_DOUBLE_EQ(exit_weight_factor(options, 0, 100), 0.5);
  EXPECT_DOUBLE_EQ(exit_weight_factor(options, 10, 100), 0.75);
  EXPECT_DOUBLE_EQ(exit_weight_factor(options, 20, 100), 1.0);
  EXPECT_DOUBLE_EQ(exit_weight_factor(options, 89, 100), 1.0);
  EXPECT_DOUBLE_EQ(exit_weight_factor(options, 94, 100), 0.55);
  EXPECT_DOUBLE_EQ(exit_weight_factor(options, 99, 100), 0.1);
}

TEST(ExitWeightFactor, CosineIsSlowAtBothEnds) {
  const config::WeightScheduleOptions options{.shape = WeightShape::cosine,
                                              .warmup_fraction = 1.0,
                                              .cooldown_fraction = 0.0,
                                              .initial = 0.0,
                                              .final = 0.0};
  EXPECT_NEAR(exit_weight_factor(options, 25, 100), 0.146447, 1e-6);  // (1 - cos(pi/4)) / 2
  EXPECT_NEAR(exit_weight_factor(options, 50, 100), 0.5, 1e-12);
}

}  // namespace ee::optim
