// Weights that are no numbers end decoding with the place, at every policy, and nothing made before is lost.
#include "ee/infer/not_finite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "ee/exits/exit_gate.h"
#include "ee/infer/batch_generate.h"
#include "ee/infer/generate.h"
#include "support/tiny_model.h"

namespace ee::infer {
namespace {

using ::testing::AllOf, ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Letters : tokenizer::Tokenizer {
  std::vector<int64_t> encode(std::string_view, bool) const override { return {}; }
  std::string token_bytes(int64_t token, bool) const override {
    return {static_cast<char>('a' + token % 26)};
  }
  int64_t vocab_size() const override { return 97; }
  std::string fingerprint() const override { return "letters"; }
  std::optional<int64_t> token_id(std::string_view) const override { return std::nullopt; }
};

struct Broken : ::testing::Test {
  Broken() {
    config::ModelConfig config = test::tiny_config();
    config.eos_tokens = {};
    model.backbone = test::tiny_backbone(config);
    model.exits = test::tiny_exits(
        model.backbone, {{.layer = 2, .kind = config::ExitKind::mlp, .head = config::HeadKind::own},
                         {.layer = 4, .kind = config::ExitKind::norm, .head = config::HeadKind::own}});
    for (exits::ExitHead& exit : model.exits) {
      exit.gate = at::zeros({2, config.hidden_size + exits::kGateExtras});
    }
  }

  // At both policies, greedy and sampling: the same error.
  void expect_error(double threshold, const std::string& words) const {
    for (const auto policy : {config::ExitPolicy::confidence, config::ExitPolicy::gate}) {
      for (const double temperature : {0.0, 0.8}) {
        const Generation made = run(threshold, policy, temperature);
        EXPECT_EQ(made.finish, FinishReason::error);
        EXPECT_THAT(made.error, AllOf(HasSubstr(words), HasSubstr("ee-convert verify"), HasSubstr("bf16")));
      }
    }
  }
  Generation run(double threshold, config::ExitPolicy policy, double temperature) const {
    return generate(model, Letters(), prompt,
                    {.max_new_tokens = 12,
                     .threshold = threshold,
                     .policy = policy,
                     .sampling = {.temperature = temperature}});
  }

  Model model;
  std::vector<int64_t> prompt = {5, 60, 17, 33};
};

TEST_F(Broken, FinalNormIsTheFinalLayers) {
  for (const double value : {kNan, kInfinity}) {
    model.backbone.final_norm[7].fill_(value);
    expect_error(1.0, "the logits of the final layer are NaN or infinite at position 3 of the sequence");
  }
}

TEST_F(Broken, OneRowOfTheHeadIsTheFinalLayers) {
  model.backbone.head[96][3].fill_(kNan);
  expect_error(1.0, "the logits of the final layer are");
}

TEST_F(Broken, AnExitIsNamed) {
  model.exits[1].head[11][3].fill_(kNan);
  expect_error(0.9999999, "the logits of the exit at layer 4 are NaN or infinite at position 3");
  EXPECT_EQ(run(1.0, config::ExitPolicy::confidence, 0.0).finish, FinishReason::length)
      << "who is not asked harms nobody";
}

TEST_F(Broken, ALayerIsFoundAtTheNextHead) {
  model.backbone.layers[2].mlp.down.weight[0][0].fill_(kInfinity);  // layer 3
  expect_error(0.9999999, "the exit at layer 4");
  expect_error(1.0, "the final layer");
}

TEST_F(Broken, AGateIsNamed) {
  model.exits[0].gate[1][0].fill_(kNan);
  const Generation made = run(0.9, config::ExitPolicy::gate, 0.0);
  EXPECT_EQ(made.finish, FinishReason::error);
  EXPECT_THAT(made.error, HasSubstr("the gate's probability at the exit at layer 2 is NaN"));
  EXPECT_EQ(run(0.9, config::ExitPolicy::confidence, 0.0).finish, FinishReason::length);
}

// What was generated until then stays, and has been streamed.
TEST_F(Broken, NothingThatWasMadeIsLost) {
  const Generation whole = run(1.0, config::ExitPolicy::confidence, 0.0);
  // The first new token that has not been there makes the embedding's row that is no number.
  size_t last = 0;
  std::vector<int64_t> seen = prompt;
  while (std::ranges::find(seen, whole.tokens[last].id) != seen.end()) {
    seen.push_back(whole.tokens[last++].id);
  }
  model.backbone.embedding[whole.tokens[last].id].fill_(kNan);
  std::string streamed;
  const Generation made =
      generate(model, Letters(), prompt, {.max_new_tokens = 12, .stop = {"never this"}},
               {.on_token = {}, .on_text = [&](size_t, std::string_view text) { streamed += text; }});
  EXPECT_EQ(made.finish, FinishReason::error);
  EXPECT_THAT(made.error, HasSubstr(fmt::format("position {} ", prompt.size() + last)));
  ASSERT_EQ(made.tokens.size(), last + 1);
  EXPECT_EQ(made.text, whole.text.substr(0, last + 1));
  EXPECT_EQ(streamed, made.text);
}

TEST_F(Broken, ABatchNamesThePromptAndKeepsTheAnswersBefore) {
  std::vector<BatchRequest> requests = {{.prompt = {1, 2}}, {.prompt = {3, 4, 5}}, {.prompt = {6, 90, 7}}};
  model.backbone.embedding[90].fill_(kNan);
  for (const double temperature : {0.0, 0.8}) {
    std::vector<size_t> answered;
    const auto run = [&] {
      generate_batch(model.backbone, requests, {},
                     {.batch = 1, .max_new_tokens = 1, .sampling = {.temperature = temperature}},
                     [&](size_t request, BatchAnswer) { answered.push_back(request); });
    };
    try {
      run();
      FAIL();
    } catch (const NotFinite& error) {
      EXPECT_THAT(error.what(), HasSubstr("the final layer are NaN or infinite at position 2 of prompt 3"));
    }
    EXPECT_EQ(answered, (std::vector<size_t>{0, 1}));
  }
}

// A token that is impossible is no fault, however many are.
TEST_F(Broken, ImpossibleTokensAreNot) {
  const at::Tensor logits = at::full({97}, -kInfinity, at::kFloat);
  logits[42].fill_(1.5);
  for (const double temperature : {0.0, 0.7}) {
    Sampler sampler({.temperature = temperature, .top_p = 0.9});
    EXPECT_EQ(sampler.sample(logits, 42), 42);
  }
  Sampler sampler({.temperature = 1.0});
  EXPECT_THROW(sampler.sample(at::full({97}, kNan, at::kFloat), 0), base::InternalError);
}

}  // namespace
}  // namespace ee::infer
