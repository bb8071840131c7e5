// ee-tune prepare --self on a tiny model, and training on what it wrote.
#include <gmock/gmock.h>

#include <algorithm>
#include <sstream>

#include "tune_fixture.h"

namespace ee {

using testing::HasSubstr;

struct Prepare : Tune {
  void SetUp() override {
    Tune::SetUp();
    write_prompts(30);
  }
  void write_prompts(int count) const {
    std::string prompts;
    for (int i = 0; i < count; ++i) prompts += prompt(i) + "\n";
    write("prompts.txt", prompts);
  }
  static std::string prompt(int i) {  // of different lengths
    return fmt::format("Say {} in {}", std::string(static_cast<size_t>(1 + i % 7), 'x'), i);
  }

  std::vector<std::string> command(const std::string& output, const std::vector<std::string>& more) const {
    std::vector<std::string> words = {"prepare",   "--self",
                                      "--model",   (folder_ / "model").string(),
                                      "--prompts", (folder_ / "prompts.txt").string(),
                                      "--output",  (folder_ / output).string(),
                                      "--threads", "1"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  test::Finished prepare(const std::string& output, const std::vector<std::string>& more) const {
    return test::Process(EE_BIN_DIR "/ee-tune", command(output, more), folder_ / "prepare.log").wait();
  }
  std::string read(const std::string& name) const { return base::read_text_file(folder_ / name); }

  // Ids of the answer that ee-infer gives to one prompt.
  nlohmann::json ask_ee_infer(const std::string& prompt) const {
    const auto finished = test::Process(EE_BIN_DIR "/ee-infer",
                                        {"--model", (folder_ / "plain").string(), "--prompt", prompt,
                                         "--json", "--max-new-tokens", "16", "--threads", "1"},
                                        folder_ / "infer.log")
                              .wait();
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
    return nlohmann::json::parse(finished.output);
  }
};

TEST_F(Prepare, AnswersAreThoseOfEeInferInTheOrderOfThePrompts) {
  const auto finished = prepare("answers.jsonl", {"--max-new-tokens", "16", "--batch", "4"});
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_THAT(finished.output, HasSubstr("30 answers"));
  std::istringstream lines(read("answers.jsonl"));
  int i = 0;
  for (std::string text; std::getline(lines, text); ++i) {
    const auto line = nlohmann::json::parse(text);
    ASSERT_EQ(line.at("prompt"), prompt(i));
    if (i % 7 != 0) continue;
    const auto said = ask_ee_infer(prompt(i));
    std::vector<int64_t> expected;
    for (const char c : prompt(i)) expected.push_back(c);  // the byte tokenizer, no chat template
    EXPECT_EQ(line.at("prompt_tokens"), expected.size());
    for (const auto& token : said.at("tokens")) expected.push_back(token.at("id").get<int64_t>());
    EXPECT_EQ(line.at("tokens"), expected);
    EXPECT_EQ(line.at("answer"), said.at("text"));
    EXPECT_EQ(line.at("finish"), said.at("finish"));
  }
  EXPECT_EQ(i, 30);
}

TEST_F(Prepare, AKilledRunGoesOnToTheSameFile) {
  write_prompts(200);
  const std::vector<std::string> options = {"--max-new-tokens", "64", "--temperature", "0.9"};
  ASSERT_EQ(prepare("whole.jsonl", options).exit_code, 0);
  auto slowly = options;
  slowly.insert(slowly.end(), {"--batch", "1"});
  test::Process killed(EE_BIN_DIR "/ee-tune", command("part.jsonl", slowly), folder_ / "prepare.log");
  const auto part = folder_ / "part.jsonl.part";
  while (!std::filesystem::exists(part) || std::ranges::count(read("part.jsonl.part"), '\n') < 12)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  killed.signal(SIGKILL);
  killed.wait();
  std::ofstream(part, std::ios::app) << "{\"ans";  // as if in the middle of a line

  auto other = options;
  other.back() = "0.8";
  const auto refused = prepare("part.jsonl", other);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.output, HasSubstr("was begun with another model"));
  const auto resumed = prepare("part.jsonl", options);
  ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
  EXPECT_THAT(resumed.output, HasSubstr("of 200 answers are there already"));
  EXPECT_EQ(read("part.jsonl"), read("whole.jsonl"));
  EXPECT_FALSE(std::filesystem::exists(part));
}

TEST_F(Prepare, AnswersAreTrainedAndEvaluatedOn) {
  ASSERT_EQ(prepare("answers.jsonl", {"--max-new-tokens", "64"}).exit_code, 0);
  write("tune.json",
        config_with({{"data", {{"train", {(folder_ / "answers.jsonl").string()}}}}, {"steps", 5}}).dump());
  const auto tuned = run();
  EXPECT_EQ(tuned.exit_code, 0) << tuned.output;
  const auto evaluated = test::Process(EE_BIN_DIR "/ee-infer",
                                       {"eval", "--model", (folder_ / "out").string(), "--data",
                                        (folder_ / "answers.jsonl").string(), "--sequence-length", "32",
                                        "--json", "--threads", "1"},
                                       folder_ / "eval.log")
                             .wait();
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.output;
}

TEST_F(Prepare, MistakesAreNamed) {
  const auto refuses = [&](const std::vector<std::string>& more, const char* words) {
    const auto finished = prepare("answers.jsonl", more);
    EXPECT_EQ(finished.exit_code, 2) << finished.output;
    EXPECT_THAT(finished.output, HasSubstr(words));
  };
  refuses({"--batch", "0"}, "batch is 0");
  refuses({"--max-new-tokens", "125"}, "prompts.txt, prompt 1: the prompt has");
  refuses({"--precision", "f64"}, "expected stored, f32 or bf16");
  write("answers.jsonl", "");
  refuses({"--max-new-tokens", "16"}, "answers.jsonl exists already");
  std::filesystem::remove_all(folder_ / "answers.jsonl");
  std::filesystem::remove_all(folder_ / "answers.jsonl.part");
  write("prompts.txt", "\n\n");
  refuses({}, "holds no prompts");
  const auto unsaid =
      test::Process(EE_BIN_DIR "/ee-tune", {"prepare", "--model", "m", "--prompts", "p", "--output", "o"},
                    folder_ / "prepare.log")
          .wait();
  EXPECT_EQ(unsaid.exit_code, 2);
  EXPECT_THAT(unsaid.output, HasSubstr("--self"));
}

}  // namespace ee
