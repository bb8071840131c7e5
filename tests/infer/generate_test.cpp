#include "ee/infer/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "ee/base/error.h"
#include "support/tiny_model.h"

namespace ee::infer {
namespace {

// Ids 0..96 as short pieces, among them halves of a two-byte character.
class PieceTokenizer : public tokenizer::Tokenizer {
 public:
  explicit PieceTokenizer(std::optional<int64_t> eos = {}) { eos_ = eos; }
  std::vector<int64_t> encode(std::string_view, bool) const override { return {}; }
  std::string token_bytes(int64_t token, bool) const override {
    switch (token % 5) {
      case 0:
        return "\xC3";
      case 1:
        return "\xA9";
      default:
        return {static_cast<char>('a' + token % 7), static_cast<char>('a' + token % 3)};
    }
  }
  int64_t vocab_size() const override { return 97; }
  std::string fingerprint() const override { return "pieces"; }
  std::optional<int64_t> token_id(std::string_view) const override { return std::nullopt; }
};

struct Generate : ::testing::Test {
  Generate() {
    config::ModelConfig config = test::tiny_config();
    config.eos_tokens = {};
    model.backbone = test::tiny_backbone(config);
    model.exits = test::tiny_exits(
        model.backbone, {{.layer = 2, .kind = config::ExitKind::mlp, .head = config::HeadKind::own},
                         {.layer = 4, .kind = config::ExitKind::norm}});
  }
  Generation run(const GenerateOptions& options, const GenerateListener& listener = {}) const {
    return generate(model, tokenizer, prompt, options, listener);
  }
  static std::vector<int64_t> ids(const Generation& generation) {
    std::vector<int64_t> ids;
    for (const GeneratedToken& token : generation.tokens) {
      ids.push_back(token.id);
    }
    return ids;
  }
  // All tokens' bytes, without regard to stop strings; invalid UTF-8 included.
  std::string bytes(const Generation& generation) const {
    std::string text;
    for (const GeneratedToken& token : generation.tokens) {
      text += tokenizer.token_bytes(token.id, false);
    }
    return text;
  }

  Model model;
  PieceTokenizer tokenizer;
  std::vector<int64_t> prompt = {1, 17, 42};
};

TEST_F(Generate, GreedyAtThresholdOneEqualsArgmaxOfTheFullModel) {
  std::vector<int64_t> tokens = prompt;
  for (int i = 0; i < 20; ++i) {
    const at::Tensor hidden =
        model::run_layers(model.backbone, at::tensor(tokens, at::kLong).view({1, -1}),
                          model.backbone.config.layers, [](int64_t, const model::LayerTrace&) {});
    const at::Tensor normed =
        model::rms_norm(hidden, model.backbone.final_norm, model.backbone.config.rms_norm_eps);
    tokens.push_back(
        at::linear(normed, model.backbone.head).select(1, hidden.size(1) - 1).argmax().item<int64_t>());
  }
  const Generation generation = run({.max_new_tokens = 20});
  EXPECT_EQ(ids(generation), std::vector<int64_t>(tokens.begin() + 3, tokens.end()));
  EXPECT_EQ(generation.finish, FinishReason::length);
  EXPECT_EQ(generation.prompt_tokens, 3);
}

TEST_F(Generate, StreamsTheTextItReturnsPieceByPieceInOrder) {
  std::string streamed;
  std::vector<size_t> order;
  size_t chosen = 0;
  GenerateListener listener;
  listener.on_token = [&](const GeneratedToken&) { ++chosen; };
  listener.on_text = [&](size_t token, std::string_view text) {
    EXPECT_LT(token, chosen);
    order.push_back(token);
    streamed += text;
  };
  const Generation generation =
      run({.max_new_tokens = 60, .sampling = {.temperature = 1.5, .seed = 3}}, listener);
  tokenizer::Utf8Stream whole;
  const std::string expected = whole.push(bytes(generation));
  EXPECT_EQ(generation.text, expected + whole.finish());
  EXPECT_EQ(streamed, generation.text);
  EXPECT_EQ(chosen, generation.tokens.size());
  EXPECT_TRUE(std::ranges::is_sorted(order));
  EXPECT_GT(order.size(), 20u);
}

TEST_F(Generate, EndsInFrontOfAStopString) {
  const GenerateOptions options{.max_new_tokens = 60, .sampling = {.temperature = 1.5, .seed = 3}};
  const std::string whole = run(options).text;
  GenerateOptions stopping = options;
  stopping.stop = {"never there", whole.substr(11, 4)};
  const Generation generation = run(stopping);
  EXPECT_EQ(generation.finish, FinishReason::stop);
  EXPECT_EQ(generation.text, whole.substr(0, whole.find(stopping.stop[1])));
  EXPECT_LT(generation.tokens.size(), 60u);
}

TEST_F(Generate, EndsAfterAnEndOfTextTokenOfConfigOrTokenizer) {
  const std::vector<int64_t> whole = ids(run({.max_new_tokens = 10}));
  const auto first = std::find(whole.begin(), whole.end(), whole[6]);
  const std::vector<int64_t> expected(whole.begin(), first + 1);
  const Generation by_tokenizer = generate(model, PieceTokenizer(whole[6]), prompt, {.max_new_tokens = 10});
  model.backbone.config.eos_tokens = {95, whole[6]};
  for (const Generation& generation : {by_tokenizer, run({.max_new_tokens = 10})}) {
    EXPECT_EQ(generation.finish, FinishReason::eos);
    EXPECT_EQ(ids(generation), expected);
    EXPECT_EQ(generation.text.find(tokenizer.token_bytes(whole[6], false)), std::string::npos);
  }
}

TEST_F(Generate, TheSeedDeterminesASampledText) {
  const auto sampled = [&](uint64_t seed) {
    return ids(run({.max_new_tokens = 30, .threshold = 0.5, .sampling = {.temperature = 1.0, .seed = seed}}));
  };
  EXPECT_EQ(sampled(1), sampled(1));
  EXPECT_NE(sampled(1), sampled(2));
}

TEST_F(Generate, TellsWhichExitMadeEachToken) {
  std::set<int64_t> used;
  const Generation generation = run({.max_new_tokens = 60, .threshold = 0.5, .probe = true});
  for (const GeneratedToken& token : generation.tokens) {
    used.insert(token.exit);
    ASSERT_EQ(token.opinions.size(), 3u);
    const size_t row = token.exit == kFinalLayer ? 2 : static_cast<size_t>(token.exit);
    EXPECT_EQ(token.opinions[row].token, token.id);
    EXPECT_EQ(token.opinions[row].confidence, token.confidence);
    for (size_t earlier = 0; earlier < row; ++earlier) {
      EXPECT_LT(token.opinions[earlier].confidence, 0.5);
    }
  }
  EXPECT_GE(used.size(), 2u);
}

TEST_F(Generate, FillsTheContextToItsLastPosition) {
  EXPECT_EQ(run({.max_new_tokens = 125}).tokens.size(), 125u);  // 3 + 125 = 128 positions
  EXPECT_EQ(run({.max_new_tokens = 7, .context = 10}).tokens.size(), 7u);
}

TEST_F(Generate, RefusesWhatDoesNotFit) {
  const auto message = [&](const GenerateOptions& options) -> std::string {
    try {
      run(options);
    } catch (const base::UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(message({.max_new_tokens = 126}), ::testing::HasSubstr("3 tokens"));
  EXPECT_THAT(message({.max_new_tokens = 8, .context = 10}), ::testing::HasSubstr("context of 10"));
  EXPECT_THAT(message({.context = 129}), ::testing::HasSubstr("1 to 128"));
  EXPECT_THAT(message({.context = -1}), ::testing::HasSubstr("context is -1"));
  EXPECT_THAT(message({.max_new_tokens = 0}), ::testing::HasSubstr("at least 1"));
  EXPECT_THAT(message({.max_new_tokens = INT64_MAX}), ::testing::HasSubstr("context"));
  EXPECT_THAT(message({.threshold = 1.01}), ::testing::HasSubstr("1.01"));
  EXPECT_THAT(message({.threshold = -0.1}), ::testing::HasSubstr("-0.1"));
  EXPECT_THAT(message({.threshold = NAN}), ::testing::HasSubstr("nan"));
  EXPECT_THAT(message({.stop = {""}}), ::testing::HasSubstr("stop string is empty"));
  prompt = {};
  EXPECT_THAT(message({}), ::testing::HasSubstr("empty"));
  prompt = {1, 97};
  EXPECT_THAT(message({}), ::testing::HasSubstr("token 97"));
  prompt = {-1};
  EXPECT_THAT(message({}), ::testing::HasSubstr("token -1"));
}

}  // namespace
}  // namespace ee::infer
