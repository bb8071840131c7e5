// A Mistral whose attention has a window of 32 tokens: every command takes texts that fit, and refuses longer
// ones by the name of the key.
#include "infer_fixture.h"

namespace ee {
namespace {

class AttentionWindow : public Infer {
 protected:
  static void SetUpTestSuite() {
    Infer::SetUpTestSuite();
    const auto file = root_ / "model/config.json";
    auto config = nlohmann::json::parse(base::read_text_file(file));
    config["model_type"] = "mistral";
    config["sliding_window"] = 32;
    std::ofstream(file) << config;
    write("text.txt", std::string(5000, 'a'));
  }
  static std::string tokens(size_t count) {
    return nlohmann::json({{"tokens", std::vector<int>(count, 97)}}).dump() + "\n";
  }
  static test::Finished tune(std::vector<std::string> args) {
    args.insert(args.end(), {"--threads", "1"});
    return test::Process(EE_BIN_DIR "/ee-tune", args, root_ / "output.log").wait();
  }
  static void expect_refused_by_name(const test::Finished& finished) {
    EXPECT_EQ(finished.exit_code, 2) << finished.output;
    EXPECT_THAT(finished.output, testing::HasSubstr("sliding_window"));
  }
};

TEST_F(AttentionWindow, GeneratesUpToItsLength) {
  const std::string prompt(20, 'a');
  EXPECT_EQ(run({"--prompt", prompt, "--max-new-tokens", "12"}).exit_code, 0);
  expect_refused_by_name(run({"--prompt", prompt, "--max-new-tokens", "13"}));
  expect_refused_by_name(run({"--prompt", "a", "--max-new-tokens", "1", "--context", "33"}));
}

TEST_F(AttentionWindow, ScoresUpToItsLength) {
  const auto score = [](size_t count) {
    const auto input = write("in.jsonl", tokens(count));
    return run({"score", "--input", input.string(), "--output", path("out.jsonl")});
  };
  EXPECT_EQ(score(32).exit_code, 0);
  expect_refused_by_name(score(33));
}

TEST_F(AttentionWindow, EvaluatesAndCalibratesUpToItsLength) {
  const auto eval = [](const char* length) {
    return run({"eval", "--data", path("text.txt"), "--sequences", "2", "--sequence-length", length});
  };
  EXPECT_EQ(eval("32").exit_code, 0);
  expect_refused_by_name(eval("33"));
  expect_refused_by_name(
      tune({"calibrate", "--model", path("model"), "--data", path("text.txt"), "--sequence-length", "33"}));
}

TEST_F(AttentionWindow, TunesAndPreparesUpToItsLength) {
  const nlohmann::json config = {{"model", {{"path", path("model")}}},
                                 {"output", path("tuned")},
                                 {"data", {{"train", {path("text.txt")}}}},
                                 {"batch", {{"sequence_length", 33}}},
                                 {"steps", 1}};
  expect_refused_by_name(tune({"--config", write("tune.json", config.dump()).string()}));
  expect_refused_by_name(tune({"prepare", "--self", "--model", path("model"), "--prompts",
                               write("prompts.txt", "abc\n").string(), "--output", path("answers.jsonl"),
                               "--max-new-tokens", "30"}));
}

}  // namespace
}  // namespace ee
