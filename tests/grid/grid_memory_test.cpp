// What --dry-run says of memory is what a run then takes.
#include <gtest/gtest.h>

#include <regex>

#include "grid/grid_fixture.h"

namespace ee {
namespace {

constexpr double kTolerance = 0.1;

double mebibytes(const std::string& number, const std::string& unit) {
  return std::stod(number) * (unit == "GiB" ? 1024 : 1);
}

}  // namespace

class GridMemory : public Grid {
 protected:
  // Large enough that weights, states and activations outweigh the program itself.
  void SetUp() override {
    Grid::SetUp();
    auto model = test::tiny_config();
    model.hidden_size = 384;
    model.intermediate_size = 1536;
    model.layers = 8;
    model.heads = 6;
    model.kv_heads = 2;
    model.head_dim = 64;
    model.max_positions = 512;
    std::filesystem::remove_all(folder_ / "plain");
    std::filesystem::remove_all(folder_ / "model");
    test::write_model(folder_ / "plain", model);
    checkpoint::attach_exits({.source = folder_ / "plain",
                              .output = folder_ / "model",
                              .exits = {{.layer = 3, .kind = config::ExitKind::mlp},
                                        {.layer = 6, .kind = config::ExitKind::mlp},
                                        {.layer = 8, .kind = config::ExitKind::mlp}},
                              .dtype = {}});
  }

  double peak() const {
    double largest = 0;
    for (const auto& row : metrics())
      if (row.contains("peak_memory_bytes"))
        largest = std::max(largest, row.at("peak_memory_bytes").get<double>() / (1 << 20));
    return largest;
  }

  // Of a rank of the last stage, which is the one that logs. Returns the peak in MiB.
  double expect_estimate_holds(const nlohmann::json& sizes, int ranks) {
    for (const char* name : {"out", "out.logs", "out.checkpoints"})  // of a run before
      std::filesystem::remove_all(folder_ / name);
    nlohmann::json changes = {{"steps", 4},
                              {"batch", {{"sequence_length", 256}, {"micro_batch", 2}, {"global_batch", 4}}},
                              {"checkpoint", {{"every_steps", 0}}},
                              {"evaluation", {{"every_steps", 0}}},
                              {"logging", {{"every_steps", 1}}}};
    changes.merge_patch(sizes);
    configure(changes);
    const auto plan = run({"--dry-run"});
    EXPECT_EQ(plan.exit_code, 0) << plan.output;
    const std::regex line("(?:each rank|memory   ) ([0-9.]+) (MiB|GiB) = ");
    double estimate = 0;
    for (std::sregex_iterator match(plan.output.begin(), plan.output.end(), line), end; match != end; ++match)
      estimate = mebibytes((*match)[1], (*match)[2]);

    const auto finished = ranks == 1 ? run() : run({"--spawn", std::to_string(ranks)});
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
    EXPECT_NEAR(estimate, peak(), kTolerance * peak()) << plan.output;
    return peak();
  }
};

TEST_F(GridMemory, EstimateHoldsInOneProcess) { expect_estimate_holds(nlohmann::json::object(), 1); }
TEST_F(GridMemory, EstimateHoldsOnPipelineStages) { expect_estimate_holds(grid(1, 2, 1), 2); }
TEST_F(GridMemory, EstimateHoldsOnTensorRanks) { expect_estimate_holds(grid(2, 1, 1), 2); }

// Also that recomputation saves activations, and turns the gradients of the groups that wait.
TEST_F(GridMemory, EstimateHoldsForTheWholeModel) {
  const auto all = expect_estimate_holds({{"train", "all"}}, 1);
  const auto graphs = expect_estimate_holds({{"train", {{"mode", "all"}, {"recompute", false}}}}, 1);
  const auto turns = expect_estimate_holds({{"train", {{"hift", {{"groups", 5}}}}}}, 1);
  testing::Test::RecordProperty(
      "peaks", fmt::format("all {:.0f} without recomputation {:.0f} turns {:.0f}", all, graphs, turns));
  std::printf("peak MiB: all %.0f, without recomputation %.0f, five turns %.0f\n", all, graphs, turns);
  EXPECT_LT(all, graphs);
  EXPECT_LT(turns, all);
}
TEST_F(GridMemory, EstimateHoldsForTheWholeModelOnStages) {
  auto changes = grid(1, 2, 1);
  changes["train"] = "all";
  expect_estimate_holds(changes, 2);
}

}  // namespace ee
