// Any grid of processes computes what one process computes.
#include <gtest/gtest.h>

#include <cmath>

#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "grid/grid_fixture.h"

namespace ee {
using config::ExitKind, config::ExitPosition, config::HeadKind, config::NormKind;
namespace fs = std::filesystem;

namespace {

constexpr double kLossTolerance = 1e-5;  // relative
constexpr double kNormTolerance = 1e-4;  // relative: sums of squares over other parts
constexpr double kWeightTolerance = 1e-4;

void expect_near_relative(double got, double expected, double tolerance, const std::string& what) {
  EXPECT_NEAR(got, expected, tolerance * std::abs(expected)) << what;
}

void expect_equal_step(const nlohmann::json& got, const nlohmann::json& expected) {
  const auto what = fmt::format("step {}", expected.at("step").dump());
  ASSERT_EQ(got.at("step"), expected.at("step"));
  ASSERT_EQ(got.at("loss").size(), expected.at("loss").size());
  EXPECT_EQ(got.value("empty_steps", 0), expected.value("empty_steps", 0)) << what;
  for (const auto& [layer, loss] : expected.at("loss").items()) {
    if (loss.is_null()) {  // nothing was learned
      EXPECT_TRUE(got.at("loss").at(layer).is_null() && got.at("gradient_norm").at(layer).is_null()) << what;
      continue;
    }
    expect_near_relative(got.at("loss").at(layer), loss, kLossTolerance, what + ", loss of exit " + layer);
    expect_near_relative(got.at("gradient_norm").at(layer), expected.at("gradient_norm").at(layer),
                         kNormTolerance, what + ", norm of exit " + layer);
  }
  EXPECT_EQ(got.at("learning_rate"), expected.at("learning_rate")) << what;
}

void expect_equal_score(const nlohmann::json& got, const nlohmann::json& expected, double tokens) {
  EXPECT_EQ(got.at("layer"), expected.at("layer"));
  expect_near_relative(got.at("loss"), expected.at("loss"), kLossTolerance, "held-out loss");
  // One token may be a tie that rounding decides.
  EXPECT_NEAR(got.at("agreement").get<double>(), expected.at("agreement").get<double>(), 1.5 / tokens);
}

void expect_equal_evaluation(const nlohmann::json& got, const nlohmann::json& expected) {
  ASSERT_EQ(got.at("tokens"), expected.at("tokens"));
  ASSERT_EQ(got.at("exits").size(), expected.at("exits").size());
  const auto tokens = expected.at("tokens").get<double>();
  for (size_t i = 0; i < expected.at("exits").size(); ++i)
    expect_equal_score(got["exits"][i], expected["exits"][i], tokens);
  expect_equal_score(got.at("final"), expected.at("final"), tokens);
}

void expect_equal_rows(const std::vector<nlohmann::json>& got, const std::vector<nlohmann::json>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i].contains("loss"))
      expect_equal_step(got[i], expected[i]);
    else if (expected[i].contains("evaluation"))
      expect_equal_evaluation(got[i].at("evaluation"), expected[i].at("evaluation"));
    else
      EXPECT_EQ(got[i], expected[i]);
  }
}

void expect_equal_file(const fs::path& got, const fs::path& expected, double tolerance) {
  const auto a = checkpoint::TensorFiles::open_file(got), b = checkpoint::TensorFiles::open_file(expected);
  ASSERT_EQ(a.names(), b.names());
  for (const auto& [name, file] : b.names()) {
    ASSERT_EQ(a.alias(name).sizes(), b.alias(name).sizes()) << name;
    EXPECT_LT(a.alias(name).sub(b.alias(name)).abs().max().item<double>(), tolerance) << name;
  }
}

// Of a model folder, or of a checkpoint (which has one file for all that is trained).
void expect_equal_weights(const fs::path& got, const fs::path& expected, double tolerance) {
  expect_equal_file(got / "exits.safetensors", expected / "exits.safetensors", tolerance);
  if (fs::exists(expected / "model.safetensors"))
    expect_equal_file(got / "model.safetensors", expected / "model.safetensors", tolerance);
  if (fs::exists(expected / "ee_config.json")) {  // checksums of whole tensors, whoever had which part
    EXPECT_NO_THROW(checkpoint::ModelFolder::open(got, checkpoint::Check::always));
  }
}

}  // namespace

class GridEquality : public Grid {
 protected:
  static constexpr int kEqualSteps = 20;

  void SetUp() override {
    Grid::SetUp();
    common_ = {{"steps", kEqualSteps},
               {"data", {{"cache", (folder_ / "cache").string()}}},
               {"optimizer", {{"lr", 0.003}, {"clip_norm", 0.3}, {"weight_decay", 0.1}}},
               {"checkpoint", {{"every_steps", 10}}},
               {"evaluation", {{"sequences", 5}}},  // the last micro-batch is shorter
               {"logging", {{"every_steps", 1}, {"tensorboard", false}}}};
  }

  void use_model(const config::ModelConfig& model, const std::vector<config::ExitSpec>& exits) {
    fs::remove_all(folder_ / "plain");
    fs::remove_all(folder_ / "model");
    test::write_model(folder_ / "plain", model);
    checkpoint::attach_exits(
        {.source = folder_ / "plain", .output = folder_ / "model", .exits = exits, .dtype = {}});
  }

  // One process is the reference for the grids that follow.
  void use_options(const nlohmann::json& options) {
    common_.merge_patch(options);
    run_as("one", {}, 1);
    const auto rows = rows_of("one");
    const auto losses =
        std::count_if(rows.begin(), rows.end(), [](const auto& r) { return r.contains("loss"); });
    ASSERT_EQ(losses, kEqualSteps);
    bool clipped = false;
    for (const auto& row : rows)
      if (row.contains("gradient_norm"))
        for (const auto& norm : row.at("gradient_norm")) clipped |= norm.is_number() && norm > 0.3;
    EXPECT_TRUE(clipped) << "clipping was not tested";
  }

  // Exits that are solved on a few micro-batches, then trained with the terms of `loss`.
  static nlohmann::json fit_then_learn(const nlohmann::json& loss) {
    return {{"batch", {{"micro_batch", 2}, {"global_batch", 4}}},
            {"exits", {{"gradient_filter", 0}, {"init", "fit"}, {"fit_tokens", 1024}, {"loss", loss}}}};
  }

  // From here on the grids' runs differ so from the reference.
  void change_options(const nlohmann::json& options) { common_.merge_patch(options); }

  void expect_same(int tensor, int pipeline, int data, const nlohmann::json& more = {}) {
    const auto name = fmt::format("t{}p{}d{}{}", tensor, pipeline, data, more.is_null() ? "" : more.dump());
    SCOPED_TRACE(name);
    const auto output = fmt::format("grid-{}", ++grids_);
    ASSERT_NO_FATAL_FAILURE(run_as(output, grid(tensor, pipeline, data, more), tensor * pipeline * data));
    expect_equal_rows(rows_of(output), rows_of("one"));
    expect_equal_weights(folder_ / output, folder_ / "one", kWeightTolerance);
    const fs::path last = fmt::format("step-{}", kEqualSteps);
    expect_equal_weights((folder_ / (output + ".checkpoints")) / last, folder_ / "one.checkpoints" / last,
                         kWeightTolerance);
  }

 private:
  void run_as(const std::string& output, const nlohmann::json& parallel, int processes) {
    auto changes = common_;
    if (!parallel.is_null()) changes.merge_patch(parallel);
    changes["output"] = (folder_ / output).string();
    configure(changes);
    const auto finished = processes == 1 ? run() : run({"--spawn", std::to_string(processes)});
    ASSERT_EQ(finished.exit_code, 0) << finished.output;
  }
  std::vector<nlohmann::json> rows_of(const std::string& output) const {
    return read_metrics(folder_ / (output + ".logs"));
  }

  nlohmann::json common_;
  int grids_ = 0;
};

TEST_F(GridEquality, AllKindsOfExits) {
  use_model(test::tiny_config(),
            {{.layer = 1, .kind = ExitKind::embedding, .head = HeadKind::own, .norm = NormKind::none},
             {.layer = 2, .kind = ExitKind::mlp},
             {.layer = 3, .kind = ExitKind::layer, .weight = 0.5},
             {.layer = 4, .kind = ExitKind::norm, .head = HeadKind::own},
             {.layer = 5, .kind = ExitKind::mlp, .head = HeadKind::own, .norm = NormKind::shared}});
  use_options({{"batch", {{"micro_batch", 2}, {"global_batch", 4}}},
               {"exits", {{"gradient_filter", 0}}},
               {"optimizer", {{"clip", "per_exit"}}}});
  expect_same(2, 1, 1);
  expect_same(4, 1, 1);  // two ranks share each key/value head
  expect_same(1, 2, 1);
  expect_same(1, 4, 1);
  expect_same(1, 1, 2);
  expect_same(2, 2, 1);
}

TEST_F(GridEquality, BiasesTiedHeadAndExitsInFrontOfLayers) {
  auto model = test::tiny_config();
  model.qkv_bias = model.output_bias = model.mlp_bias = model.tie_embeddings = true;
  use_model(model, {{.layer = 1, .kind = ExitKind::norm, .position = ExitPosition::before},
                    {.layer = 2, .kind = ExitKind::mlp, .temperature = 1.5},
                    {.layer = 4, .kind = ExitKind::layer, .position = ExitPosition::before, .weight = 0.5},
                    {.layer = 5, .kind = ExitKind::layer, .head = HeadKind::own}});
  use_options({{"batch", {{"micro_batch", 2}, {"global_batch", 2}}},  // no accumulation
               {"exits", {{"token_weights", "confidence"}}},
               {"optimizer", {{"clip", "global"}}}});
  expect_same(2, 1, 1, {{"sequence", true}});
  expect_same(4, 1, 1, {{"sequence", true}});
  expect_same(1, 4, 1);
  expect_same(2, 2, 1, {{"sequence", true}, {"schedule", "flush"}, {"in_flight", 1}});
}

TEST_F(GridEquality, UnevenHeadsAndSeveralReplicas) {
  auto model = test::tiny_config();
  model.model_type = "qwen2";
  model.qkv_bias = true;
  model.heads = 6, model.kv_heads = 3;  // on two ranks: 2 and 4 heads
  model.intermediate_size = 49;
  use_model(model, {{.layer = 2, .kind = ExitKind::layer},
                    {.layer = 4, .kind = ExitKind::mlp, .head = HeadKind::own},
                    {.layer = 5, .kind = ExitKind::norm}});
  use_options({{"batch", {{"micro_batch", 1}, {"global_batch", 4}}}, {"optimizer", {{"clip", "global"}}}});
  expect_same(1, 1, 2);
  expect_same(1, 1, 2, {{"shard_optimizer", true}});
  expect_same(2, 2, 2);
  expect_same(2, 2, 2, {{"sequence", true}, {"shard_optimizer", true}});
}

// The backbone as well: gradients go back through stages, and what several of them hold is trained as one.
TEST_F(GridEquality, WholeModel) {
  use_model(
      test::tiny_config(),
      {{.layer = 1, .kind = ExitKind::embedding, .position = ExitPosition::before, .norm = NormKind::none},
       {.layer = 2, .kind = ExitKind::mlp, .weight = 0.5},
       {.layer = 3, .kind = ExitKind::layer},
       {.layer = 5, .kind = ExitKind::norm, .head = HeadKind::own, .norm = NormKind::shared}});
  use_options({{"train", {{"mode", "all"}, {"final_weight", 0.75}}},
               {"batch", {{"micro_batch", 1}, {"global_batch", 4}}},
               {"exits", {{"gradient_filter", 0}}}});
  expect_same(1, 1, 2);
  expect_same(1, 1, 2, {{"shard_optimizer", true}});
  expect_same(1, 2, 1);
  expect_same(1, 4, 1);
  expect_same(1, 2, 2);
  expect_same(2, 1, 1);
  expect_same(2, 2, 1, {{"sequence", true}});
}

TEST_F(GridEquality, WholeTiedModelWithoutRecomputation) {
  auto model = test::tiny_config();
  model.qkv_bias = model.output_bias = model.mlp_bias = model.tie_embeddings = true;
  use_model(model, {{.layer = 2, .kind = ExitKind::norm}, {.layer = 4, .kind = ExitKind::mlp}});
  use_options({{"train", {{"mode", "all"}, {"recompute", false}}},
               {"batch", {{"micro_batch", 1}, {"global_batch", 2}}},
               {"optimizer", {{"clip", "global"}}}});
  expect_same(1, 3, 1, {{"in_flight", 1}});
  expect_same(1, 2, 2, {{"shard_optimizer", true}});
  expect_same(4, 1, 1, {{"sequence", true}});
}

TEST_F(GridEquality, LayersThatTakeTurns) {
  use_model(test::tiny_config(), {{.layer = 3, .kind = ExitKind::mlp}, {.layer = 5, .kind = ExitKind::norm}});
  use_options({{"train", {{"hift", {{"groups", 4}, {"order", "random"}}}}},
               {"batch", {{"micro_batch", 1}, {"global_batch", 2}}},
               {"exits", {{"gradient_filter", 0}}}});
  expect_same(1, 1, 2);
  expect_same(1, 1, 2, {{"shard_optimizer", true}});
  expect_same(2, 1, 1);
}

// From one sequence to the next the tokens to learn are many, few or none: what a step computes does not
// depend on how they fall into micro-batches and replicas.
class GridOnPrompts : public GridEquality {
 protected:
  void SetUp() override {
    GridEquality::SetUp();
    std::mt19937_64 random(3);
    std::vector<std::pair<int, int>> documents;
    for (int i = 0; i < 60; ++i) {
      const int tokens = 1 + static_cast<int>(random() % 90);
      documents.emplace_back(tokens,
                             random() % 2 == 0 ? tokens - static_cast<int>(random() % 3 % tokens) : 0);
    }
    change_options({{"data", {{"train", {write("prompts.jsonl", prompts(documents)).string()}}}}});
    use_model(test::tiny_config(), {{.layer = 2, .kind = ExitKind::mlp},
                                    {.layer = 4, .kind = ExitKind::norm, .head = HeadKind::own},
                                    {.layer = 5, .kind = ExitKind::layer, .weight = 0.5}});
  }
  static nlohmann::json batch(int micro_batch) {
    return {{"batch", {{"micro_batch", micro_batch}, {"global_batch", 4}}},
            {"exits", {{"gradient_filter", 0}}}};
  }
};

TEST_F(GridOnPrompts, FrozenBackbone) {
  use_options(batch(4));
  change_options(batch(1));
  expect_same(1, 1, 1);
  expect_same(1, 1, 2);
  expect_same(1, 2, 1);
  expect_same(2, 1, 1, {{"sequence", true}});
  change_options(batch(2));
  expect_same(1, 1, 2, {{"shard_optimizer", true}});
  expect_same(1, 2, 2, {{"schedule", "flush"}});
}

TEST_F(GridOnPrompts, FitAndTeacher) {
  use_model(test::tiny_config(),
            {{.layer = 1, .kind = ExitKind::linear, .translator = config::TranslatorKind::full},
             {.layer = 5, .kind = ExitKind::mlp}});
  change_options(fit_then_learn({{"cross_entropy", 0.5}, {"kl", 1}, {"kl_temperature", 2}, {"hidden", 0.1}}));
  use_options(batch(4));
  change_options(batch(1));
  expect_same(1, 1, 2);
  expect_same(1, 2, 1);
  expect_same(2, 1, 1);
  change_options({{"data", {{"exit_inputs", true}, {"cache", (folder_ / "kept").string()}}}});
  expect_same(1, 1, 1);
}

TEST_F(GridOnPrompts, WholeModelByConfidence) {
  change_options(batch(4));
  use_options({{"train", {{"mode", "all"}}}, {"exits", {{"token_weights", "confidence"}}}});
  change_options(batch(1));
  expect_same(1, 1, 2);
  expect_same(1, 2, 1);
  expect_same(2, 1, 1);
}

// Ranks leave such steps out together.
TEST_F(GridOnPrompts, StepsWithNothingToLearn) {
  const auto text = write("mostly.jsonl", prompts({{300, 300}, {900, 0}})).string();
  change_options({{"data",
                   {{"train", {text}},
                    {"validation", {(folder_ / "text.txt").string()}},
                    {"validation_fraction", 0},
                    {"shuffle", false}}}});
  use_options(batch(1));
  const auto rows = read_metrics(folder_ / "one.logs");
  EXPECT_GE(std::ranges::count_if(rows, [](const auto& row) { return row.contains("empty_steps"); }), 3);
  expect_same(1, 1, 2, {{"shard_optimizer", true}});
  expect_same(1, 2, 1);
  expect_same(1, 2, 2, {{"schedule", "flush"}});
}

// Exits that are solved first and then learn from the final layer, which is on the last stage.
TEST_F(GridEquality, FitAndTeacher) {
  use_model(
      test::tiny_config(),
      {{.layer = 1, .kind = ExitKind::linear, .translator = config::TranslatorKind::full},
       {.layer = 2, .kind = ExitKind::mlp, .head = HeadKind::own, .translator = config::TranslatorKind::full},
       {.layer = 3,
        .kind = ExitKind::layer,
        .translator = config::TranslatorKind::low_rank,
        .translator_rank = 4},
       {.layer = 5, .kind = ExitKind::mlp}});
  use_options(fit_then_learn({{"cross_entropy", 0.5}, {"kl", 1}, {"kl_temperature", 2}, {"hidden", 0.1}}));
  expect_same(2, 1, 1);
  expect_same(1, 2, 1);
  expect_same(1, 4, 1, {{"in_flight", 1}});
  expect_same(1, 1, 2);
  expect_same(2, 2, 2, {{"sequence", true}});
}

// What exits read is computed once by some grid, and read by any other.
TEST_F(GridEquality, ExitInputsKeptOnDisk) {
  use_model(test::tiny_config(),
            {{.layer = 1, .kind = ExitKind::linear, .translator = config::TranslatorKind::full},
             {.layer = 2, .kind = ExitKind::mlp, .head = HeadKind::own},
             {.layer = 5, .kind = ExitKind::mlp, .translator = config::TranslatorKind::full}});
  use_options({{"batch", {{"micro_batch", 2}, {"global_batch", 4}}}, {"exits", {{"gradient_filter", 0}}}});
  const auto keep_in = [&](const char* cache) {
    change_options({{"data", {{"exit_inputs", true}, {"cache", (folder_ / cache).string()}}}});
  };
  keep_in("kept-by-one");
  expect_same(1, 1, 1);
  expect_same(1, 2, 1);
  keep_in("kept-by-four");
  expect_same(1, 2, 2);
  expect_same(2, 1, 1, {{"sequence", true}});
  keep_in("kept-by-two");
  expect_same(2, 1, 1, {{"sequence", true}});
  expect_same(1, 1, 1);
}

TEST_F(GridEquality, ExitInputsKeptOnDiskWithFitAndTeacher) {
  use_model(test::tiny_config(),
            {{.layer = 1, .kind = ExitKind::linear, .translator = config::TranslatorKind::full},
             {.layer = 5, .kind = ExitKind::mlp}});
  use_options(fit_then_learn({{"cross_entropy", 0.5}, {"kl", 1}, {"hidden", 0.1}}));
  change_options({{"data", {{"exit_inputs", true}, {"cache", (folder_ / "kept").string()}}}});
  expect_same(1, 2, 1);
  expect_same(1, 1, 1);
  expect_same(2, 2, 2, {{"sequence", true}});
}

// A run goes on where another grid stopped, again and again.
TEST_F(GridEquality, CheckpointsKnowNoGrid) {
  // A constant rate does not depend on the number of steps, so a shorter run is the beginning of a longer
  // one.
  const nlohmann::json options = {{"steps", kEqualSteps},
                                  {"batch", {{"micro_batch", 1}, {"global_batch", 4}}},
                                  {"schedule", {{"decay", "constant"}}},
                                  {"logging", {{"every_steps", 1}}}};
  auto whole = options;
  whole["output"] = (folder_ / "whole").string();
  configure(whole);
  ASSERT_EQ(run().exit_code, 0);

  auto parts = options;
  parts["checkpoint"]["directory"] = (folder_ / "checkpoints").string();
  parts["logging"]["directory"] = (folder_ / "logs").string();
  const std::vector<nlohmann::json> grids = {
      grid(1, 1, 1), grid(2, 1, 1), grid(1, 2, 2, {{"shard_optimizer", true}}), grid(4, 1, 1), grid(1, 1, 1)};
  for (size_t i = 0; i < grids.size(); ++i) {
    auto part = parts;
    part.merge_patch(grids[i]);
    part["steps"] = kEqualSteps * (i + 1) / grids.size();
    part["output"] = (folder_ / fmt::format("part-{}", i)).string();
    configure(part);
    const auto& sizes = part.at("parallel");
    const int processes =
        sizes["tensor"].get<int>() * sizes["pipeline"].get<int>() * sizes["data"].get<int>();
    const auto finished = run({"--resume", "auto", "--spawn", std::to_string(processes)});
    ASSERT_EQ(finished.exit_code, 0) << finished.output;
    EXPECT_EQ(finished.output.find("resumed at step") != std::string::npos, i > 0) << finished.output;
  }
  const auto steps_of = [&](const std::string& logs) {
    std::vector<nlohmann::json> steps;
    for (const auto& row : read_metrics(folder_ / logs))
      if (row.contains("loss")) steps.push_back(row);
    return steps;
  };
  ASSERT_EQ(steps_of("whole.logs").size(), kEqualSteps);
  expect_equal_rows(steps_of("logs"), steps_of("whole.logs"));
  expect_equal_weights(folder_ / "part-4", folder_ / "whole", kWeightTolerance);
}

}  // namespace ee
