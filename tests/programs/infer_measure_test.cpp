#include <cmath>

#include "ee/format/safetensors.h"
#include "infer_fixture.h"

namespace ee {
namespace {

using InferMeasure = Infer;

std::vector<nlohmann::json> lines_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(nlohmann::json::parse(line));
  }
  return lines;
}

TEST_F(InferMeasure, ScoreWritesEveryLayerOfTokensAndText) {
  const auto input = write("in.jsonl", "{\"tokens\":[72,105,33]}\n\n{\"text\":\"Hi!\"}\n");
  const test::Finished finished = run({"score", "--input", input.string(), "--output", path("out.jsonl")});
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  const auto lines = lines_of(root_ / "out.jsonl");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], lines[1]);  // the byte tokenizer's ids of "Hi!"
  EXPECT_EQ(lines[0]["tokens"], nlohmann::json({72, 105, 33}));
  for (const char* layer : {"final", "2", "4"}) {
    const auto& scores = lines[0]["layers"][layer];
    ASSERT_EQ(scores["logprobs"].size(), 3u);
    EXPECT_TRUE(scores["logprobs"][0].is_null());
    EXPECT_LT(scores["logprobs"][1], 0.0);
    EXPECT_EQ(scores["argmax"].size(), 3u);
  }
}

TEST_F(InferMeasure, LogitsAgreeWithTheScores) {
  const auto input = write("one.jsonl", "{\"tokens\":[72,105,33,10]}\n");
  ASSERT_EQ(run({"score", "--input", input.string(), "--output", path("one.out"), "--logits",
                 path("one.safetensors")})
                .exit_code,
            0);
  const auto line = lines_of(root_ / "one.out").at(0);
  const format::SafetensorsFile file(root_ / "one.safetensors");
  EXPECT_EQ(file.tensors().size(), 3u);
  for (const auto& [name, view] : file.tensors()) {
    EXPECT_EQ(view.dtype, format::DType::f32);
    ASSERT_EQ(view.shape, (std::vector<int64_t>{4, 257}));
    const auto* logits = reinterpret_cast<const float*>(view.bytes.data());
    for (int64_t i = 0; i < 3; ++i) {
      double sum = 0;
      for (int64_t v = 0; v < 257; ++v) {
        sum += std::exp(static_cast<double>(logits[i * 257 + v]));
      }
      const auto next = line["tokens"][static_cast<size_t>(i) + 1].get<int64_t>();
      EXPECT_NEAR(line["layers"][name]["logprobs"][static_cast<size_t>(i) + 1],
                  logits[i * 257 + next] - std::log(sum), 1e-4);
    }
  }
}

TEST_F(InferMeasure, ScoreRefusesBadLinesAndWritesNothing) {
  const std::pair<const char*, const char*> cases[] = {
      {"{\"tokens\":[1]}\nnot json\n", "bad.jsonl:2"},
      {"[1,2]\n", "tokens"},
      {"{}\n", "tokens"},
      {"{\"tokens\":[1],\"text\":\"x\"}\n", "either"},
      {"{\"tokens\":[1.5]}\n", "whole numbers"},
      {"{\"tokens\":\"x\"}\n", "whole numbers"},
      {"{\"tokens\":[]}\n", "0 tokens"},
      {"{\"tokens\":[257]}\n", "token 257"},
      {"{\"tokens\":[18446744073709551615]}\n", "bad.jsonl:1"},
      {"{\"text\":7}\n", "string"},
      {"", "no lines"},
  };
  for (const auto& [text, words] : cases) {
    const auto input = write("bad.jsonl", text);
    expect_refused({"score", "--input", input.string(), "--output", path("bad.out")}, words);
    EXPECT_FALSE(std::filesystem::exists(root_ / "bad.out")) << text;
  }
  const auto two = write("two.jsonl", "{\"tokens\":[1]}\n{\"tokens\":[1]}\n");
  expect_refused({"score", "--input", two.string(), "--output", path("two.out"), "--logits", path("two.st")},
                 "single input line");
  EXPECT_FALSE(std::filesystem::exists(root_ / "two.out"));
  EXPECT_FALSE(std::filesystem::exists(root_ / "two.st"));
  expect_refused({"score", "--input", path("absent"), "--output", path("x")}, "absent");
}

TEST_F(InferMeasure, ScoreReportsAFullDiskAndLeavesNothing) {
  const auto input = write("full.jsonl", "{\"tokens\":[1,2]}\n");
  expect_refused({"score", "--input", input.string(), "--output", path("absent/out.jsonl")}, "absent");
  expect_refused({"score", "--input", input.string(), "--output", path("out2.jsonl"), "--logits",
                  path("absent/x.safetensors")},
                 "absent");
  EXPECT_FALSE(std::filesystem::exists(root_ / "out2.jsonl"));
}

TEST_F(InferMeasure, NumbersThatAreNoneAreNamedAndTheLinesBeforeKept) {
  write_broken_model(90);
  const auto lines = write("broken.jsonl", "{\"tokens\":[1,2]}\n{\"tokens\":[3,4]}\n{\"tokens\":[5,90,6]}\n");
  const auto score = [&](const std::string& model, const std::string& output) {
    return run({"score", "--input", lines.string(), "--output", path(output)}, model);
  };
  const test::Finished finished = score("broken", "broken.out");
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.output, testing::HasSubstr("the exit at layer 2 are NaN or infinite at"));
  EXPECT_THAT(finished.output, testing::HasSubstr("broken.jsonl:3"));
  EXPECT_FALSE(std::filesystem::exists(root_ / "broken.out"));
  EXPECT_EQ(score("model", "whole.out").exit_code, 0);
  const std::string whole = base::read_text_file(root_ / "whole.out");
  const size_t two_lines = whole.find('\n', whole.find('\n') + 1) + 1;
  EXPECT_EQ(base::read_text_file(root_ / "broken.out.part"), whole.substr(0, two_lines));

  std::string text(400, 'a');
  text[300] = 'Z';  // token 90
  const auto data = write("broken.txt", text);
  const test::Finished evaluated =
      run({"eval", "--data", data.string(), "--sequence-length", "64"}, "broken");
  EXPECT_EQ(evaluated.exit_code, 2);
  EXPECT_THAT(evaluated.output, testing::HasSubstr("of sequence 5 of the text"));
}

TEST_F(InferMeasure, EvalPrintsATableOrOneJsonObject) {
  std::string text;
  for (int i = 0; i < 100; ++i) {
    text += "an early exit ";
  }
  const auto data = write("text.txt", text);
  const auto json =
      run_json({"eval", "--data", data.string(), "--sequences", "4", "--sequence-length", "64"});
  EXPECT_EQ(json["tokens"], 256);
  ASSERT_EQ(json["exits"].size(), 2u);
  EXPECT_EQ(json["exits"][0]["layer"], 2);
  EXPECT_EQ(json["exits"][1]["thresholds"].size(), 4u);
  EXPECT_NEAR(json["final"]["perplexity"], std::exp(json["final"]["loss"].get<double>()), 1e-9);

  const test::Finished table = run({"eval", "--data", data.string(), "--sequence-length", "64"});
  EXPECT_EQ(table.exit_code, 0);
  EXPECT_THAT(table.output, testing::HasSubstr("perplexity"));
}

TEST_F(InferMeasure, EvalRefusesBadDataAndSizes) {
  const auto data = write("short.txt", "too short");
  expect_refused({"eval", "--data", data.string(), "--sequence-length", "64"}, "not enough");
  expect_refused({"eval", "--data", data.string(), "--sequence-length", "500"}, "1 to 128");
  expect_refused({"eval", "--data", data.string(), "--sequences", "0", "--sequence-length", "4"},
                 "at least 1");
  expect_refused({"eval", "--data", path("absent"), "--sequence-length", "64"}, "absent");
  expect_refused({"eval"}, "--data");
  const auto empty = write("empty.txt", "");
  expect_refused({"eval", "--data", empty.string(), "--sequence-length", "4"}, "empty.txt");
}

}  // namespace
}  // namespace ee
