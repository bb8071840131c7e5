#include "ee/parallel/stage_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "ee/base/error.h"

namespace ee::parallel {
namespace {

double dearest(const std::vector<StagePlan>& plan) {
  double result = 0;
  for (const auto& stage : plan) result = std::max(result, stage.total());
  return result;
}

// Tries every split.
double best_by_enumeration(const std::vector<DepthCost>& costs, int64_t first, int64_t stages) {
  const auto layers = static_cast<int64_t>(costs.size()) - 1;
  double sum = first == 1 ? costs[0].total() : 0, best = 1e300;
  for (int64_t last = first; last + stages - 1 <= layers; ++last) {
    sum += costs[last].total();
    if (stages == 1 && last != layers) continue;
    best =
        std::min(best, stages == 1 ? sum : std::max(sum, best_by_enumeration(costs, last + 1, stages - 1)));
  }
  return best;
}

TEST(PlanStages, IsAsGoodAsTryingEverySplit) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> cost(0.1, 3.0);
  for (int round = 0; round < 50; ++round) {
    std::vector<DepthCost> costs(2 + random() % 9);
    for (auto& depth : costs)
      depth = {.layer = cost(random), .exits = random() % 3 == 0 ? cost(random) * 4 : 0};
    const auto stages = static_cast<int64_t>(1 + random() % (costs.size() - 1));
    const auto plan = plan_stages(costs, stages);
    EXPECT_NEAR(dearest(plan), best_by_enumeration(costs, 1, stages), 1e-9);
    ASSERT_EQ(static_cast<int64_t>(plan.size()), stages);
    for (size_t s = 0; s < plan.size(); ++s) {
      EXPECT_EQ(plan[s].first_layer, s == 0 ? 1 : plan[s - 1].last_layer + 1);
      EXPECT_LE(plan[s].first_layer, plan[s].last_layer);
    }
    EXPECT_EQ(plan.back().last_layer, static_cast<int64_t>(costs.size()) - 1);
  }
}

TEST(PlanStages, AnExpensiveExitGetsAStageOfItsOwn) {
  std::vector<DepthCost> costs(9, {.layer = 1, .exits = 0});
  costs[0].layer = 0;
  costs[4].exits = 8;
  const auto plan = plan_stages(costs, 3);
  EXPECT_EQ(plan[1].first_layer, 4);
  EXPECT_EQ(plan[1].last_layer, 4);
  EXPECT_EQ(plan[1].exits, 8);
}

TEST(PlanStages, RefusesMoreStagesThanLayers) {
  EXPECT_THROW(plan_stages(std::vector<DepthCost>(3, {.layer = 1, .exits = 0}), 3), base::UserError);
}

}  // namespace
}  // namespace ee::parallel
