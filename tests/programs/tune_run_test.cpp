#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "programs/tune_fixture.h"

namespace ee {
namespace fs = std::filesystem;
using testing::HasSubstr;

using TuneRun = Tune;

TEST_F(TuneRun, EndsWithAModelFolderWhoseExitsAreBetter) {
  const auto finished = run();
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  const auto tuned = checkpoint::ModelFolder::open(folder_ / "out");
  EXPECT_EQ(tuned.exits().exits, checkpoint::ModelFolder::open(folder_ / "model").exits().exits);
  EXPECT_NE(weights(folder_ / "out"), weights(folder_ / "model"));
  for (const char* file : {"model.safetensors", "config.json", "tokenizer.json"})
    EXPECT_EQ(base::read_text_file(folder_ / "out" / file), base::read_text_file(folder_ / "model" / file))
        << file;

  std::vector<nlohmann::json> evaluations;
  for (const auto& row : metrics())
    if (row.contains("evaluation")) evaluations.push_back(row);
  ASSERT_EQ(evaluations.size(), 4u);  // at 0, 20, 40 and the end
  EXPECT_EQ(evaluations.back().at("step"), kSteps);
  for (size_t exit = 0; exit < 2; ++exit) {
    const auto& before = evaluations.front()["evaluation"]["exits"][exit];
    const auto& after = evaluations.back()["evaluation"]["exits"][exit];
    EXPECT_LT(after.at("loss").get<double>(), before.at("loss").get<double>() - 0.5) << after;
  }
}

TEST_F(TuneRun, MetricsAndEventsAreWritten) {
  ASSERT_EQ(run().exit_code, 0);
  std::set<int> steps;
  for (const auto& row : metrics()) {
    if (!row.contains("loss")) continue;
    steps.insert(row.at("step").get<int>());
    EXPECT_GT(row.at("loss").at("2").get<double>(), 0);
    EXPECT_GT(row.at("gradient_norm").at("4").get<double>(), 0);
    EXPECT_GT(row.at("seconds_per_step").get<double>(), 0);
    EXPECT_GT(row.at("tokens_per_second").get<double>(), 0);
    EXPECT_GT(row.at("peak_memory_bytes").get<int64_t>(), 1 << 20);
  }
  EXPECT_EQ(steps.size(), kSteps / 5);
  const auto is_event_file = [](const auto& entry) {
    return entry.path().filename().string().starts_with("events.out.tfevents.");
  };
  EXPECT_EQ(
      std::count_if(fs::directory_iterator(folder_ / "out.logs"), fs::directory_iterator(), is_event_file),
      1);
}

TEST_F(TuneRun, ConsoleTellsLossesSpeedAndWhatIsLeft) {
  const auto output = run().output;
  EXPECT_THAT(output, testing::ContainsRegex(
                          "step 10/60  loss  2: [0-9.]+  4: [0-9.]+  lr [0-9.e+-]+  [0-9]+ tokens/s"));
  EXPECT_THAT(output, HasSubstr(" left  peak "));
  EXPECT_THAT(output, HasSubstr("wrote " + (folder_ / "out").string()));
}

TEST_F(TuneRun, ExitsThatAreNotTrainedStayAsTheyAre) {
  ASSERT_EQ(run({"--set", "exits.train=[2]", "--set", "steps=3"}).exit_code, 0);
  const auto before = checkpoint::ModelFolder::open(folder_ / "model");
  const auto after = checkpoint::ModelFolder::open(folder_ / "out");
  for (const auto& [name, file] : before.exit_files().names()) {
    const bool same = at::equal(before.exit_files().alias(name), after.exit_files().alias(name));
    EXPECT_EQ(same, name.starts_with("exits.4.")) << name;
  }
}

TEST_F(TuneRun, GatesAreFittedAtTheEndAndDroppedByTheNextRun) {
  const auto finished = run({"--set", "gate.train=true", "--set", "gate.tokens=256"});
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_NE(finished.output.find("gates on 256 held-out tokens"), std::string::npos) << finished.output;
  EXPECT_TRUE(checkpoint::ModelFolder::open(folder_ / "out").has_gates());

  const std::string again = (folder_ / "again").string();
  const auto next = run({"--set", "model.path=" + (folder_ / "out").string(), "--set", "output=" + again});
  ASSERT_EQ(next.exit_code, 0) << next.output;
  EXPECT_FALSE(checkpoint::ModelFolder::open(again).has_gates());

  const std::string grid = (folder_ / "grid").string();
  const auto two = run({"--set", "gate.train=true", "--set", "gate.tokens=256", "--set",
                        "parallel.pipeline=2", "--set", "output=" + grid, "--spawn", "2"});
  ASSERT_EQ(two.exit_code, 0) << two.output;
  EXPECT_TRUE(checkpoint::ModelFolder::open(grid).has_gates());
}

TEST_F(TuneRun, SimulationKnowsExitsThatLearnFromTheFinalLayer) {
  const auto finished =
      run({"--dry-run", "--simulate", "--set", "parallel.pipeline=2", "--set", "exits.loss.kl=1"});
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_NE(finished.output.find("streaming"), std::string::npos) << finished.output;
  EXPECT_NE(finished.output.find("-6, "), std::string::npos) << "all layers run: " << finished.output;
}

TEST_F(TuneRun, DryRunTellsTheCostAndWritesNoModel) {
  const auto finished = run({"--dry-run"});
  EXPECT_EQ(finished.exit_code, 0) << finished.output;
  // mlp 3 x 32 x 48 + norm 32; norm 32 + head 257 x 32
  for (const char* text :
       {"after layer 2: mlp, norm own, head shared, weight 1, temperature 1; 4.64 k own parameters",
        "8.26 k own parameters", "60 steps of 4 x 32 tokens", "FLOP a token", "memory"})
    EXPECT_THAT(finished.output, HasSubstr(text));
  for (const char* name : {"out", "out.checkpoints", "out.logs"})
    EXPECT_FALSE(fs::exists(folder_ / name)) << name;
}

TEST_F(TuneRun, DryRunReadsNoWeights) {
  const auto file = folder_ / "model" / "exits.safetensors";
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(fs::file_size(file)) - 4)
      .write("\0\0\xC0\x7F", 4);  // a NaN
  EXPECT_EQ(run({"--dry-run"}).exit_code, 0);
}

// Two sequences of prompts only, a step in which nothing is learned, and then a text.
TEST_F(TuneRun, StepsWithoutATokenToLearnAreTold) {
  const auto text = write("prompts.jsonl", prompts({{70, 70}, {70, 66}, {200, 0}, {40, 30}, {300, 0}}));
  const nlohmann::json options = {
      {"steps", 4},
      {"data", {{"train", {text.string()}}, {"shuffle", false}, {"validation_fraction", 0}}},
      {"evaluation", {{"every_steps", 0}, {"at_start", false}}},
      {"batch", {{"micro_batch", 1}, {"global_batch", 2}}}};
  const auto lines = [&](int every_steps) {
    auto changes = options;
    changes["logging"]["every_steps"] = every_steps;
    changes["output"] = (folder_ / fmt::format("every-{}", every_steps)).string();
    write("tune.json", config_with(changes).dump(2));
    const auto finished = run();
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
    EXPECT_THAT(finished.output,
                HasSubstr(fmt::format("1 of the last {} steps had nothing to learn", every_steps)));
    std::vector<nlohmann::json> rows;
    for (const auto& row : read_metrics(folder_ / fmt::format("every-{}.logs", every_steps)))
      if (row.contains("loss")) rows.push_back(row);
    return rows;
  };
  const auto each = lines(1), all = lines(4);
  ASSERT_EQ(each.size(), 4u);
  ASSERT_EQ(all.size(), 1u);
  EXPECT_TRUE(each[0]["loss"]["2"].is_null() && each[0]["gradient_norm"]["2"].is_null()) << each[0];
  EXPECT_EQ(each[0]["empty_steps"], 1);
  double sum = 0, tokens = 0;
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_FALSE(each[i].contains("empty_steps"));
    sum += each[i]["loss"]["2"].get<double>() * each[i]["learned_tokens"].get<double>();
    tokens += each[i]["learned_tokens"].get<double>();
  }
  EXPECT_NE(each[1]["learned_tokens"], each[2]["learned_tokens"]) << "means were not told apart";
  EXPECT_EQ(all[0]["learned_tokens"], tokens);
  EXPECT_NEAR(all[0]["loss"]["2"].get<double>(), sum / tokens, 1e-9);
}

TEST_F(TuneRun, TextInWhichNothingIsLearnedIsRefused) {
  const auto prompts_only = write("prompts.jsonl", prompts({{200, 200}})).string();
  const auto mostly = write("mostly.jsonl", prompts({{200, 200}, {400, 0}})).string();
  const auto expect_refused = [&](const nlohmann::json& changes, const char* named) {
    write("tune.json", config_with(changes).dump(2));
    for (const auto& args : {std::vector<std::string>{}, {"--dry-run"}}) {
      const auto finished = run(args);
      EXPECT_EQ(finished.exit_code, 2) << finished.output;
      EXPECT_THAT(finished.output, HasSubstr(std::string(named) + ": there is nothing to learn"));
      EXPECT_FALSE(fs::exists(folder_ / "out") || fs::exists(folder_ / "out.logs"));
    }
  };
  const auto text = (folder_ / "text.txt").string();
  const auto data = [](const std::string& train, const std::string& validation) {
    return nlohmann::json{
        {"train", {train}}, {"validation", {validation}}, {"validation_fraction", 0}, {"shuffle", false}};
  };
  expect_refused({{"data", data(prompts_only, text)}}, "data.train");
  expect_refused({{"data", data(text, prompts_only)}}, "data.validation");
  const auto in_order = data(mostly, text);
  expect_refused({{"data", in_order}, {"steps", 1}}, "data.train");

  write("tune.json", config_with({{"data", in_order}, {"steps", 3}}).dump(2));
  const auto simulated = run({"--dry-run", "--simulate"});
  EXPECT_EQ(simulated.exit_code, 0) << simulated.output;
  EXPECT_THAT(simulated.output, HasSubstr("tokens/s"));
}

TEST_F(TuneRun, PrintedConfigurationIsAConfiguration) {
  const auto first = run({"--print-config", "--set", "optimizer.lr=0.5"});
  EXPECT_EQ(first.exit_code, 0);
  EXPECT_EQ(nlohmann::json::parse(first.output).at("optimizer").at("lr"), 0.5);
  write("tune.json", first.output);
  EXPECT_EQ(run({"--print-config"}).output, first.output);
}

TEST_F(TuneRun, BadInputIsNamedAndLeavesNothingBehind) {
  const auto fails = [&](const std::vector<std::string>& args, const char* message) {
    const auto finished = run(args);
    EXPECT_EQ(finished.exit_code, 2) << finished.output;
    EXPECT_THAT(finished.output, HasSubstr(message));
    for (const char* name : {"out", "out.checkpoints", "out.logs"})
      EXPECT_FALSE(fs::exists(folder_ / name)) << name;
  };
  fails({"--set", "optimiser.lr=1"}, "optimizer");
  fails({"--set", "exits.train=[3]"}, "names layer 3, which has no exit");
  fails({"--set", "data.train=[\"" + (folder_ / "absent").string() + "\"]"},
        "absent is neither a file nor a folder");
  fails({"--set", "data.train=[\"" + write("empty.txt", "").string() + "\"]"}, "no text in");
  fails({"--set", "data.train=[\"" + write("bad.txt", "caf\xe9").string() + "\"]"}, "not UTF-8");
  fails({"--set", "data.train=[\"" + write("short.txt", "a few words").string() + "\"]"},
        "do not make one sequence");
  fails({"--set", "batch.sequence_length=4096"}, "the model in");
  fails({"--set", "device=cuda:99"}, "device cuda:99");
  fails({"--device", "cuda:99"}, "device cuda:99");
  fails({"--resume", (folder_ / "nowhere").string()}, "nowhere");
  write("model/tokenizer.json", "");
  fails({}, "tokenizer.json");
  fs::remove(folder_ / "model" / "tokenizer.json");
  fails({}, "tokenizer");
  fs::remove_all(folder_ / "model");
  fails({}, "model");
  for (const char* text : {"", "{", "[1]"}) {
    write("tune.json", text);
    fails({}, "tune.json");
  }
  fs::remove(folder_ / "tune.json");
  fails({}, "tune.json");
}

TEST_F(TuneRun, OutputThatExistsIsRefusedBeforeAnyWork) {
  fs::create_directories(folder_ / "out");
  const auto finished = run();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.output, HasSubstr("exists already"));
  for (const char* name : {"out.cache", "out.checkpoints", "out.logs"})
    EXPECT_FALSE(fs::exists(folder_ / name)) << name;
}

TEST_F(TuneRun, WhatCannotBeWrittenIsRefusedBeforeAnyWork) {
  write("file", "");
  for (const char* option : {"output", "checkpoint.directory", "logging.directory"}) {
    const auto finished = run({"--set", fmt::format("{}={}", option, (folder_ / "file/below").string())});
    EXPECT_EQ(finished.exit_code, 2) << finished.output;
    EXPECT_THAT(finished.output, HasSubstr("cannot create anything in")) << option;
    for (const char* name : {"out", "out.cache", "out.checkpoints", "out.logs"})
      EXPECT_FALSE(fs::exists(folder_ / name)) << option << ": " << name;
  }
}

TEST_F(TuneRun, AnEndOfTextBeyondTheModelsVocabularyIsRefused) {
  auto tokenizer = nlohmann::json::parse(base::read_text_file(folder_ / "model/tokenizer.json"));
  tokenizer["added_tokens"][0]["id"] = 257;
  write("model/tokenizer.json", tokenizer.dump());
  const auto finished = run();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.output, HasSubstr("vocab_size 257"));
}

}  // namespace ee
