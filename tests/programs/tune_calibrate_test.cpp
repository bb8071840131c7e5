// ee-tune calibrate and ee-infer --quality on the tiny model, as real processes.
#include <random>

#include "infer_fixture.h"

namespace ee {
namespace {

namespace fs = std::filesystem;

class TuneCalibrate : public Infer {
 protected:
  // Letters at random: text that no two places of which are alike.
  static std::string text(size_t bytes, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string text(bytes, ' ');
    for (char& byte : text) {
      byte = static_cast<char>('a' + random() % 26);
    }
    return text;
  }
  static test::Finished calibrate(const std::string& model, std::vector<std::string> args) {
    args.insert(args.begin(),
                {"calibrate", "--model", path(model), "--threads", "1", "--sequence-length", "32"});
    return test::Process(EE_BIN_DIR "/ee-tune", args, root_ / "calibrate.log").wait();
  }
  static void copy_model(const std::string& name) {
    fs::remove_all(root_ / name);
    fs::copy(root_ / "model", root_ / name);
  }
  static nlohmann::json config_of(const std::string& model) {
    return nlohmann::json::parse(base::read_text_file(root_ / model / "ee_config.json"));
  }
  static nlohmann::json exits_of(const std::vector<std::string>& options, const std::string& model) {
    std::vector<std::string> args = {"--prompt", "abc", "--max-new-tokens", "40"};
    args.insert(args.end(), options.begin(), options.end());
    return run_json(args, model)["totals"]["exits"];
  }
};

TEST_F(TuneCalibrate, WritesLevelsThatInferUses) {
  copy_model("levels");
  const auto data = write("calibrate.txt", text(10000, 1)).string();
  const auto finished = calibrate("levels", {"--data", data, "--agreement", "0.5,0.2", "--gate"});
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_THAT(finished.output, testing::HasSubstr("quality 0.2, policy gate"));
  const auto config = config_of("levels");
  ASSERT_EQ(config["quality"].size(), 4u);
  EXPECT_EQ(config["quality"][0]["agreement"], 0.5);
  EXPECT_EQ(config["quality"][3]["policy"], "gate");
  EXPECT_NE(config["exits"][0]["temperature"], 1.0);
  EXPECT_TRUE(fs::exists(root_ / "levels" / "gates.safetensors"));

  // A level of confidence equals its thresholds; here both exits', one after the other, are given by hand.
  const auto& rules = config["quality"][1]["exits"];
  ASSERT_LT(rules[0]["threshold"].get<double>() + rules[1]["threshold"].get<double>(), 2.0)
      << finished.output;
  EXPECT_LT(exits_of({"--quality", "0.2"}, "levels")["final"], 40);
  EXPECT_EQ(exits_of({"--quality", "0.2", "--policy", "gate", "--probe"}, "levels"),
            exits_of({"--quality", "0.2", "--policy", "gate"}, "levels"));
  EXPECT_EQ(exits_of({"--policy", "gate", "--threshold", "0"}, "levels")["2"], 40);
  for (const auto& grid : {std::vector<std::string>{"--spawn", "2", "--tensor", "2"},
                           std::vector<std::string>{"--spawn", "2", "--pipeline", "2"}}) {
    for (const std::string policy : {"confidence", "gate"}) {
      std::vector<std::string> options = {"--quality", "0.2", "--policy", policy};
      const auto alone = exits_of(options, "levels");
      options.insert(options.end(), grid.begin(), grid.end());
      EXPECT_EQ(exits_of(options, "levels"), alone) << policy;
    }
  }

  const auto fresh = write("fresh.txt", text(10000, 2)).string();
  const auto report = calibrate("levels", {"--data", fresh, "--report"});
  ASSERT_EQ(report.exit_code, 0) << report.output;
  EXPECT_THAT(report.output, testing::HasSubstr("quality 0.5, policy confidence"));
  EXPECT_EQ(config_of("levels"), config);
  EXPECT_EQ(
      test::Process(EE_BIN_DIR "/ee-convert", {"verify", path("levels")}, root_ / "v.log").wait().exit_code,
      0);
}

TEST_F(TuneCalibrate, AnswersTheSameTwiceAndReplacesWhatWasThere) {
  copy_model("twice");
  const auto data = write("twice.txt", text(10000, 1)).string();
  const auto all = [&](const std::string& agreement) {
    EXPECT_EQ(calibrate("twice", {"--data", data, "--agreement", agreement}).exit_code, 0);
    return config_of("twice");
  };
  const auto first = all("0.3");
  EXPECT_EQ(first["quality"].size(), 1u);
  EXPECT_EQ(all("0.4")["quality"][0]["agreement"], 0.4);
  EXPECT_EQ(all("0.3")["quality"], first["quality"]);
}

TEST_F(TuneCalibrate, RefusesWhatCannotWork) {
  copy_model("refused");
  const auto before = config_of("refused");
  const auto data = write("short.txt", text(500, 1)).string();
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{"--data", data}, "at least 32"},
      {{"--data", data, "--agreement", "95"}, "--agreement"},
      {{"--data", data, "--agreement", "0.9,"}, "--agreement"},
      {{"--data", data, "--sequences", "0"}, "--sequences"},
      {{"--data", path("absent")}, "absent"},
      {{}, "--data"},
  };
  for (const auto& [args, words] : cases) {
    const auto finished = calibrate("refused", args);
    EXPECT_EQ(finished.exit_code, 2) << finished.output;
    EXPECT_THAT(finished.output, testing::HasSubstr(words));
  }
  EXPECT_EQ(config_of("refused"), before);
  const auto plain = calibrate("plain", {"--data", data});
  EXPECT_EQ(plain.exit_code, 2);
  EXPECT_THAT(plain.output, testing::HasSubstr("has no exits"));
  expect_refused({"--prompt", "x", "--quality", "0.9"}, "it is not calibrated");
  expect_refused({"--prompt", "x", "--quality", "0.9", "--threshold", "0.5"}, "both given");
  expect_refused({"--prompt", "x", "--policy", "gate", "--threshold", "0.5"}, "have no gates");
  expect_refused({"--prompt", "x", "--policy", "guess"}, "confidence or gate");
}

}  // namespace
}  // namespace ee
