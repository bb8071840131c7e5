// ee-tune on a tiny model with exits at layers 2 (mlp) and 4 (norm, own head), as real processes.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "ee/checkpoint/attach.h"
#include "support/model_on_disk.h"
#include "support/process.h"

namespace ee {

class Tune : public testing::Test {
 protected:
  static constexpr int kSteps = 60;

  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ =
        std::filesystem::path(testing::TempDir()) / fmt::format("ee-tune-{}-{}", ::getpid(), test->name());
    std::filesystem::remove_all(folder_);
    test::write_tiny_model(folder_ / "plain");
    checkpoint::attach_exits(
        {.source = folder_ / "plain",
         .output = folder_ / "model",
         .exits = {{.layer = 2, .kind = config::ExitKind::mlp},
                   {.layer = 4, .kind = config::ExitKind::norm, .head = config::HeadKind::own}},
         .dtype = {}});
    write("text.txt", sample_text());
    write("tune.json", config_with({}).dump(2));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static std::string sample_text() {
    std::mt19937_64 random(1);
    const char* words[] = {"early", "exit", "layer", "token", "model", "tune", "loss"};
    std::string text;
    for (int i = 0; i < 3000; ++i) text += std::string(words[random() % 7]) + " ";
    return text;
  }

  // Documents of `tokens` tokens each, of which the first ones are a prompt's: JSON Lines.
  static std::string prompts(const std::vector<std::pair<int, int>>& tokens_and_prompts, uint64_t seed = 1) {
    std::mt19937_64 random(seed);
    std::string lines;
    for (const auto& [tokens, prompt] : tokens_and_prompts) {
      auto ids = nlohmann::json::array();
      for (int i = 0; i < tokens; ++i) ids.push_back('a' + random() % 8);
      lines += nlohmann::json{{"tokens", ids}, {"prompt_tokens", prompt}}.dump() + "\n";
    }
    return lines;
  }

  // The configuration with the keys of `changes` merged in (null removes a key).
  nlohmann::json config_with(const nlohmann::json& changes) const {
    nlohmann::json config = {
        {"model", {{"path", (folder_ / "model").string()}}},
        {"output", (folder_ / "out").string()},
        {"data", {{"train", {(folder_ / "text.txt").string()}}, {"validation_fraction", 0.1}}},
        {"optimizer", {{"lr", 0.01}}},
        {"batch", {{"sequence_length", 32}, {"micro_batch", 2}, {"global_batch", 4}}},
        {"steps", kSteps},
        {"threads", 1},
        {"checkpoint", {{"every_steps", 5}, {"every_minutes", 0}}},
        {"evaluation", {{"every_steps", 20}, {"sequences", 4}}},
        {"logging", {{"every_steps", 5}}}};
    if (!changes.is_null()) config.merge_patch(changes);
    return config;
  }

  std::filesystem::path write(const std::string& name, std::string_view text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }

  // Starts ee-tune with the configuration file and `args`.
  std::unique_ptr<test::Process> start(std::vector<std::string> args) const {
    args.insert(args.begin(), {"--config", (folder_ / "tune.json").string()});
    return std::make_unique<test::Process>(EE_BIN_DIR "/ee-tune", args, folder_ / "output.log");
  }
  test::Finished run(const std::vector<std::string>& args = {}) const { return start(args)->wait(); }

  // The whole run in one go, somewhere else: the reference for runs that are stopped.
  std::string uninterrupted_weights() const {
    const auto output = (folder_ / "reference").string();
    const auto finished = run({"--set", "output=" + output});
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
    return weights(output);
  }
  static std::string weights(const std::filesystem::path& model) {
    return base::read_text_file(model / "exits.safetensors");
  }
  std::vector<nlohmann::json> metrics() const { return read_metrics(folder_ / "out.logs"); }
  static std::vector<nlohmann::json> read_metrics(const std::filesystem::path& logs) {
    std::ifstream file(logs / "metrics.jsonl");
    std::vector<nlohmann::json> rows;
    for (std::string line; std::getline(file, line);) rows.push_back(nlohmann::json::parse(line));
    return rows;
  }

  std::filesystem::path folder_;
};

}  // namespace ee
