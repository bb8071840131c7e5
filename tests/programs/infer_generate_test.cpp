#include "infer_fixture.h"

namespace ee {
namespace {

using InferGenerate = Infer;
using testing::HasSubstr;

int64_t sum_of(const nlohmann::json& counts) {
  int64_t sum = 0;
  for (const auto& count : counts) {
    sum += count.get<int64_t>();
  }
  return sum;
}

TEST_F(InferGenerate, JsonTellsExitConfidenceAndTimeOfEachToken) {
  const auto json = run_json({"--prompt", "Hello", "--threshold", "0.3", "--max-new-tokens", "24"});
  EXPECT_EQ(json["prompt_tokens"], 5);
  EXPECT_EQ(json["totals"]["tokens"], json["tokens"].size());
  EXPECT_EQ(sum_of(json["totals"]["exits"]), json["tokens"].size());
  double layers = 0;
  for (const auto& token : json["tokens"]) {
    const bool is_final = token["exit"] == "final";
    EXPECT_TRUE(is_final || token["exit"] == 2 || token["exit"] == 4);
    EXPECT_TRUE(is_final || token["confidence"] >= 0.3);
    EXPECT_GT(token["ms"], 0.0);
    EXPECT_TRUE(token["text"].is_string());
    layers += is_final ? 6.0 : token["exit"].get<double>();
  }
  EXPECT_NEAR(json["totals"]["average_layers"], layers / static_cast<double>(json["tokens"].size()), 1e-9);
}

TEST_F(InferGenerate, ThresholdOneEqualsTheModelWithoutExits) {
  const std::vector<std::string> args = {"--prompt", "Hello", "--max-new-tokens", "24"};
  const auto with_exits = run_json(args);
  const auto plain = run_json(args, "plain");
  EXPECT_EQ(with_exits["text"], plain["text"]);
  EXPECT_EQ(with_exits["totals"]["exits"]["final"], with_exits["tokens"].size());
}

TEST_F(InferGenerate, TheCommandMayBeNamed) {
  const auto json = run_json({"generate", "--prompt", "x", "--max-new-tokens", "2"});
  EXPECT_LE(json["tokens"].size(), 2u);
}

TEST_F(InferGenerate, ExitsSelectsASubset) {
  const auto json =
      run_json({"--prompt", "Hello", "--threshold", "0", "--exits", "4", "--max-new-tokens", "8"});
  EXPECT_EQ(json["totals"]["exits"]["4"], json["tokens"].size());
  EXPECT_FALSE(json["totals"]["exits"].contains("2"));
}

TEST_F(InferGenerate, ReadsThePromptFromAFileOrStandardInput) {
  const auto file = write("prompt.txt", "Hello\n");
  const std::vector<std::string> options = {"--max-new-tokens", "8"};
  const auto from_option = run_json({"--prompt", "Hello", "--max-new-tokens", "8"});
  const auto from_file = run_json({"--prompt-file", file.string(), "--max-new-tokens", "8"});
  EXPECT_EQ(from_file["prompt_tokens"], 5);
  EXPECT_EQ(from_file["text"], from_option["text"]);
  const test::Finished from_input = run_with_input("Hello", "--json --max-new-tokens 8");
  EXPECT_EQ(nlohmann::json::parse(from_input.output)["text"], from_option["text"]);
}

TEST_F(InferGenerate, ShowExitsColoursAndEndsWithLegendAndHistogram) {
  ::unsetenv("NO_COLOR");
  const std::vector<std::string> args = {"--prompt",         "Hello", "--threshold", "0", "--show-exits",
                                         "--max-new-tokens", "8"};
  const test::Finished coloured = run(args);
  EXPECT_THAT(coloured.output, HasSubstr("\033[38;5;"));
  EXPECT_THAT(coloured.output, HasSubstr("2.0 of 6 layers"));
  EXPECT_THAT(coloured.output, HasSubstr("tokens/s"));
  ::setenv("NO_COLOR", "1", 1);
  const test::Finished marked = run(args);
  ::unsetenv("NO_COLOR");
  EXPECT_THAT(marked.output, testing::Not(HasSubstr("\033")));
  EXPECT_THAT(marked.output, HasSubstr("[2: "));
}

TEST_F(InferGenerate, ProbePrintsEveryExitAtEachPosition) {
  const test::Finished finished = run({"--prompt", "Hello", "--probe", "--max-new-tokens", "3"});
  EXPECT_EQ(finished.exit_code, 0);
  for (const char* words : {"    0  ", "| 2: \"", "| 4: \"", "| final: \""}) {
    EXPECT_THAT(finished.output, HasSubstr(words));
  }
  const auto json = run_json({"--prompt", "Hello", "--probe", "--max-new-tokens", "3"});
  EXPECT_EQ(json["tokens"][0]["exits"].size(), 3u);
}

TEST_F(InferGenerate, ComputesInBfloat16OnRequest) {
  EXPECT_FALSE(
      run_json({"--prompt", "Hello", "--precision", "bf16", "--max-new-tokens", "4"})["tokens"].empty());
}

TEST_F(InferGenerate, NotesAThresholdWithoutExits) {
  const test::Finished finished =
      run({"--prompt", "Hello", "--threshold", "0.5", "--max-new-tokens", "2"}, "plain");
  EXPECT_EQ(finished.exit_code, 0);
  EXPECT_THAT(finished.output, HasSubstr("has no exits"));
}

TEST_F(InferGenerate, RefusesBadOptionsWithExitCodeTwo) {
  expect_refused({"--prompt", "x", "--threshold", "1.5"}, "threshold is 1.5");
  expect_refused({"--prompt", "x", "--threshold", "-0.1"}, "threshold is -0.1");
  expect_refused({"--prompt", "x", "--threshold", "nan"}, "threshold is nan");
  expect_refused({"--prompt", "x", "--threshold", "high"}, "'high'");
  expect_refused({"--prompt", "x", "--max-new-tokens", "4", "--exits", "3"}, "3");
  expect_refused({"--prompt", "x", "--max-new-tokens", "4", "--exits", "9"}, "9");
  expect_refused({"--prompt", "x", "--temperature", "-1"}, "temperature is -1");
  expect_refused({"--prompt", "x", "--top-p", "0"}, "top-p is 0");
  expect_refused({"--prompt", "x", "--max-new-tokens", "0"}, "max-new-tokens is 0");
  expect_refused({"--prompt", "x", "--max-new-tokens", "500"}, "context of 128");
  expect_refused({"--prompt", "x", "--context", "1000"}, "1 to 128");
  expect_refused({"--prompt", "x", "--stop", ""}, "stop string is empty");
  expect_refused({"--prompt", "x", "--precision", "f16"}, "stored, f32 or bf16");
  expect_refused({"--prompt", "x", "--thresold", "0.5"}, "--threshold");
  expect_refused({"--prompt", "x", "--system", "y"}, "--chat");
  expect_refused({"--prompt", "x", "--chat"}, "no chat template");
  expect_refused({"--prompt", "x", "--prompt-file", "y"}, "one of them");
  expect_refused({"--prompt", "x", "--json", "--show-exits"}, "one of them");
}

TEST_F(InferGenerate, RefusesBadPromptsWithExitCodeTwo) {
  expect_refused({"--prompt", ""}, "prompt is empty");
  expect_refused({"--prompt", "\xff"}, "byte 0xff at offset 0");
  expect_refused({"--prompt-file", path("absent.txt")}, "absent.txt");
  expect_refused({"--prompt", std::string(200, 'x')}, "200 tokens");
}

// The token behind which the model breaks is the last one; it and all before are printed.
TEST_F(InferGenerate, NumbersThatAreNoneEndItAndLoseNothing) {
  const std::vector<std::string> args = {"--prompt", "Hello", "--threshold", "0.5", "--max-new-tokens", "24"};
  const auto whole = run_json(args)["tokens"];
  const size_t last = first_new_token(whole);
  write_broken_model(whole[last]["id"]);
  auto json = args;
  json.push_back("--json");
  const test::Finished finished = run(json, "broken");
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.output, HasSubstr(fmt::format("NaN or infinite at position {} ", 5 + last)));
  const auto line = nlohmann::json::parse(finished.output.substr(0, finished.output.find('\n')));
  EXPECT_EQ(line["finish"], "error");
  EXPECT_THAT(line["error"].get<std::string>(), HasSubstr("ee-convert verify"));
  ASSERT_EQ(line["tokens"].size(), last + 1);
  for (size_t i = 0; i <= last; ++i) {
    EXPECT_EQ(line["tokens"][i]["id"], whole[i]["id"]) << i;
  }
  for (const char* shown : {"--show-exits", "--probe"}) {
    auto more = args;
    more.push_back(shown);
    EXPECT_EQ(run(more, "broken").exit_code, 2) << shown;
  }
  // Nothing at all can be said behind a prompt that has the token.
  write_broken_model('e');
  for (const char* shown : {"--json", "--show-exits", "--probe"}) {
    auto more = args;
    more.push_back(shown);
    const test::Finished at_once = run(more, "broken");
    EXPECT_EQ(at_once.exit_code, 2) << shown;
    EXPECT_THAT(at_once.output, HasSubstr("at position 4 of the sequence")) << shown;
  }
}

// A prompt, text or output that is wrong shows before weights are read: here there are none.
TEST_F(InferGenerate, MistakesShowBeforeTheModelIsLoaded) {
  const auto folder = root_ / "weightless";
  std::filesystem::create_directories(folder);
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy_file(root_ / "plain" / name, folder / name);
  }
  const auto refuses = [&](const std::vector<std::string>& args, const std::string& words) {
    const test::Finished finished = run(args, "weightless");
    EXPECT_EQ(finished.exit_code, 2) << finished.output;
    EXPECT_THAT(finished.output, HasSubstr(words));
  };
  refuses({"--prompt-file", write("none.txt", "").string()}, "prompt is empty");
  refuses({"--prompt-file", write("line.txt", "\n").string()}, "prompt is empty");
  refuses({"--prompt", "x", "--max-new-tokens", "500"}, "context of 128");
  refuses({"--prompt", "x", "--chat"}, "no chat template");
  refuses({"eval", "--data", path("absent"), "--sequence-length", "64"}, "absent");
  const auto bad = write("late.jsonl", "{\"tokens\":[1]}\n{\"tokens\":[]}\n").string();
  const auto good = write("good.jsonl", "{\"tokens\":[1]}\n").string();
  refuses({"score", "--input", bad, "--output", path("late.out")}, "late.jsonl:2 has 0 tokens");
  refuses({"score", "--input", good, "--output", path("nowhere/late.out")}, "nowhere");
  refuses({"score", "--input", good, "--output", root_.string()}, "it is a folder");
  refuses({"score", "--input", good, "--output", path("late.out"), "--logits", path("nowhere/x")}, "nowhere");
  refuses({"--prompt", "x", "--max-new-tokens", "4"}, "weightless");
}

TEST_F(InferGenerate, RefusesBadModelsWithExitCodeTwo) {
  EXPECT_EQ(run({"--prompt", "x"}, "absent").exit_code, 2);
  const test::Finished plain = run({"--prompt", "x", "--max-new-tokens", "4", "--exits", "2"}, "plain");
  EXPECT_EQ(plain.exit_code, 2);
  EXPECT_THAT(plain.output, HasSubstr("no exits"));
  EXPECT_EQ(run_bare({"--prompt", "x"}).exit_code, 2);

  std::filesystem::copy(root_ / "model", root_ / "untokenized", std::filesystem::copy_options::recursive);
  std::filesystem::remove(root_ / "untokenized/tokenizer.json");
  const test::Finished untokenized = run({"--prompt", "x"}, "untokenized");
  EXPECT_EQ(untokenized.exit_code, 2);
  EXPECT_THAT(untokenized.output, HasSubstr("tokenizer"));

  std::filesystem::copy(root_ / "model", root_ / "mismatched", std::filesystem::copy_options::recursive);
  auto tokenizer = nlohmann::json::parse(base::read_text_file(root_ / "mismatched/tokenizer.json"));
  tokenizer["added_tokens"][0]["id"] = 300;
  std::filesystem::remove(root_ / "mismatched/tokenizer.json");
  std::ofstream(root_ / "mismatched/tokenizer.json") << tokenizer;
  const test::Finished mismatched = run({"--prompt", "x"}, "mismatched");
  EXPECT_EQ(mismatched.exit_code, 2);
  EXPECT_THAT(mismatched.output, HasSubstr("vocab_size 257"));
}

TEST_F(InferGenerate, OnlyATextThatNeedsATokenBeyondTheEmbeddingIsRefused) {
  std::filesystem::copy(root_ / "model", root_ / "padded", std::filesystem::copy_options::recursive);
  auto tokenizer = nlohmann::json::parse(base::read_text_file(root_ / "padded/tokenizer.json"));
  tokenizer["added_tokens"].push_back({{"id", 300}, {"content", "<pad>"}, {"special", true}});
  std::filesystem::remove(root_ / "padded/tokenizer.json");
  std::ofstream(root_ / "padded/tokenizer.json") << tokenizer;
  EXPECT_EQ(run({"--prompt", "x", "--max-new-tokens", "4"}, "padded").exit_code, 0);
  const test::Finished refused = run({"--prompt", "x<pad>", "--max-new-tokens", "4"}, "padded");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.output, HasSubstr("'<pad>' with id 300"));
}

}  // namespace
}  // namespace ee
