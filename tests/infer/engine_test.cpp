#include "ee/infer/engine.h"

#include <gtest/gtest.h>

#include <set>

#include "support/tiny_model.h"

namespace ee::infer {
namespace {

using config::ExitKind;
using config::ExitPosition;
using config::HeadKind;
using config::NormKind;

// Every kind, both positions, two exits at one depth, one at depth 0 and one behind the last layer.
std::vector<config::ExitSpec> all_kinds() {
  return {
      {.layer = 1, .kind = ExitKind::norm, .position = ExitPosition::before, .temperature = 2.0},
      {.layer = 2, .kind = ExitKind::embedding, .head = HeadKind::own, .norm = NormKind::none},
      {.layer = 3, .kind = ExitKind::mlp, .head = HeadKind::own, .temperature = 0.7},
      {.layer = 4, .kind = ExitKind::layer, .position = ExitPosition::before},
      {.layer = 5, .kind = ExitKind::layer, .norm = NormKind::shared},
      {.layer = 6, .kind = ExitKind::norm, .head = HeadKind::own},
  };
}

at::Tensor as_tensor(const std::vector<int64_t>& tokens) {
  return at::tensor(tokens, at::kLong).view({1, static_cast<int64_t>(tokens.size())});
}

// One exit's opinion after a full forward pass without any cache.
Prediction naive_opinion(int64_t exit, const at::Tensor& logits) {
  const at::Tensor row = logits.select(1, logits.size(1) - 1).view({-1});
  const at::Tensor probabilities = at::softmax(row, -1);
  Prediction opinion{.exit = exit, .logits = row};
  opinion.token = probabilities.argmax().item<int64_t>();
  opinion.confidence = probabilities.max().item<double>();
  return opinion;
}

// What every exit and then the final layer say about the token behind `tokens`.
std::vector<Prediction> naive_opinions(const model::Backbone& backbone,
                                       const std::vector<exits::ExitHead>& exits,
                                       const std::vector<int64_t>& tokens) {
  std::vector<Prediction> opinions;
  const auto listener = [&](int64_t depth, const model::LayerTrace& trace) {
    for (size_t i = 0; i < exits.size(); ++i) {
      if (exits[i].spec.depth() == depth) {
        const at::Tensor hidden = exits[i].forward(backbone, exits::exit_input(exits[i].spec, trace));
        opinions.push_back(naive_opinion(static_cast<int64_t>(i), exits[i].logits(backbone, hidden)));
      }
    }
  };
  const at::Tensor hidden = model::run_layers(backbone, as_tensor(tokens), backbone.config.layers, listener);
  const at::Tensor normed = model::rms_norm(hidden, backbone.final_norm, backbone.config.rms_norm_eps);
  opinions.push_back(naive_opinion(kFinalLayer, at::linear(normed, backbone.head)));
  return opinions;
}

Prediction naive_choice(const std::vector<Prediction>& opinions, double threshold) {
  for (const Prediction& opinion : opinions) {
    if (threshold < 1.0 && opinion.confidence >= threshold) {
      return opinion;
    }
  }
  return opinions.back();
}

void expect_same(const Prediction& ours, const Prediction& naive) {
  ASSERT_EQ(ours.exit, naive.exit) << "confidence " << ours.confidence << ", naive " << naive.confidence;
  EXPECT_EQ(ours.token, naive.token);
  EXPECT_NEAR(ours.confidence, naive.confidence, 1e-4);
  EXPECT_TRUE(at::allclose(ours.logits, naive.logits, 1e-3, 1e-3));
}

// The KV cache of every layer against one forward pass over all tokens at once.
void expect_cache_complete(const Engine& engine, const model::Backbone& backbone,
                           const std::vector<int64_t>& tokens) {
  const auto length = static_cast<int64_t>(tokens.size());
  at::Tensor hidden = backbone.embed(as_tensor(tokens));
  for (int64_t layer = 1; layer <= backbone.config.layers; ++layer) {
    auto expected = model::LayerCache::allocate(backbone.config, 1, length, backbone.options());
    hidden =
        model::decoder_layer(backbone.config, backbone.layer(layer), hidden, backbone.rope, &expected).output;
    const model::LayerCache& cache = engine.cache(layer);
    ASSERT_EQ(cache.length, length) << "layer " << layer;
    EXPECT_TRUE(at::allclose(cache.k.narrow(2, 0, length), expected.k, 1e-4, 1e-4)) << "layer " << layer;
    EXPECT_TRUE(at::allclose(cache.v.narrow(2, 0, length), expected.v, 1e-4, 1e-4)) << "layer " << layer;
  }
}

const std::vector<int64_t> kPrompt = {1, 17, 42, 8, 90, 33, 5};
constexpr int64_t kNewTokens = 40;

struct TinyEngine : ::testing::TestWithParam<double> {
  model::Backbone backbone = test::tiny_backbone(test::tiny_config());
  std::vector<exits::ExitHead> exits = test::tiny_exits(backbone, all_kinds());
};

TEST_P(TinyEngine, DecidesAsAFullForwardPassWithoutCacheDoes) {
  const double threshold = GetParam();
  Engine engine(backbone, exits, {.capacity = 64, .threshold = threshold});
  std::vector<int64_t> tokens = kPrompt;
  Prediction ours = engine.step(tokens);
  for (int64_t i = 0; i < kNewTokens; ++i) {
    const Prediction naive = naive_choice(naive_opinions(backbone, exits, tokens), threshold);
    expect_same(ours, naive);
    tokens.push_back(naive.token);
    ours = engine.step({&tokens.back(), 1});
  }
}

TEST_P(TinyEngine, LeavesTheKvCacheOfAFullForwardPass) {
  Engine engine(backbone, exits, {.capacity = 64, .threshold = GetParam()});
  std::vector<int64_t> tokens = kPrompt;
  tokens.push_back(engine.step(tokens).token);
  for (int64_t i = 1; i < kNewTokens; ++i) {
    tokens.push_back(engine.step({&tokens.back(), 1}).token);
  }
  tokens.pop_back();  // chosen, but never fed
  EXPECT_EQ(engine.length(), static_cast<int64_t>(tokens.size()));
  engine.flush();
  EXPECT_EQ(engine.pending(), 0);
  expect_cache_complete(engine, backbone, tokens);
}

TEST_P(TinyEngine, ProbeShowsEveryExitAndDecidesTheSame) {
  const double threshold = GetParam();
  Engine engine(backbone, exits, {.capacity = 64, .threshold = threshold, .probe = true});
  std::vector<int64_t> tokens = kPrompt;
  Prediction ours = engine.step(tokens);
  for (int64_t i = 0; i < kNewTokens; ++i) {
    const std::vector<Prediction> naive = naive_opinions(backbone, exits, tokens);
    ASSERT_EQ(engine.probes().size(), naive.size());
    for (size_t e = 0; e < naive.size(); ++e) {
      expect_same(engine.probes()[e], naive[e]);
    }
    expect_same(ours, naive_choice(naive, threshold));
    EXPECT_EQ(engine.pending(), 0);
    tokens.push_back(ours.token);
    ours = engine.step({&tokens.back(), 1});
  }
}

INSTANTIATE_TEST_SUITE_P(Thresholds, TinyEngine, ::testing::Values(1.0, 0.9, 0.7, 0.5, 0.3, 0.0));

struct TinyEngineFacts : TinyEngine {};

TEST_F(TinyEngineFacts, ThresholdsOfTheseTestsUseManyExits) {
  std::set<int64_t> used;
  for (const double threshold : {0.9, 0.7, 0.5, 0.3}) {
    Engine engine(backbone, exits, {.capacity = 64, .threshold = threshold});
    Prediction next = engine.step(kPrompt);
    for (int64_t i = 0; i < kNewTokens; ++i) {
      used.insert(next.exit);
      next = engine.step({&next.token, 1});
    }
  }
  EXPECT_GE(used.size(), exits.size());  // of seven: six exits and the final layer
}

TEST_F(TinyEngineFacts, ThresholdZeroLeavesEverythingAtTheFirstExitUntilFlush) {
  Engine engine(backbone, exits, {.capacity = 64, .threshold = 0.0});
  std::vector<int64_t> tokens = kPrompt;
  engine.step(tokens);
  for (int64_t token = 10; token < 50; ++token) {
    EXPECT_EQ(engine.step({&token, 1}).exit, 0);
    tokens.push_back(token);
  }
  EXPECT_EQ(engine.cache(1).length, 0);  // exit 0 is in front of layer 1
  EXPECT_EQ(engine.pending(), static_cast<int64_t>(tokens.size()));
  engine.flush();
  expect_cache_complete(engine, backbone, tokens);
}

TEST_F(TinyEngineFacts, LongPendingRunsCatchUpWithTheNextDeepToken) {
  // A sure exit for every token but 96: its opinion depends on the embedding alone.
  std::vector<exits::ExitHead> one = test::tiny_exits(backbone, {{.layer = 1,
                                                                  .kind = ExitKind::embedding,
                                                                  .position = ExitPosition::before,
                                                                  .head = HeadKind::own,
                                                                  .norm = NormKind::none}});
  backbone.embedding = backbone.embedding.clone();
  backbone.embedding[96].zero_();  // all logits equal: confidence 1/97
  one[0].head.mul_(50.0);
  Engine engine(backbone, one, {.capacity = 128, .threshold = 0.5});
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < 100; ++i) {
    const int64_t token = i % 90;
    tokens.push_back(token);
    ASSERT_EQ(engine.step({&token, 1}).exit, 0) << "token " << token;
  }
  EXPECT_EQ(engine.pending(), 100);
  tokens.push_back(96);
  const Prediction last = engine.step({&tokens.back(), 1});
  EXPECT_EQ(engine.pending(), 0);
  expect_same(last, naive_opinions(backbone, one, tokens).back());
  expect_cache_complete(engine, backbone, tokens);
}

TEST_F(TinyEngineFacts, NoExitFiresAtThresholdOneEvenWhenItsConfidenceRoundsToOne) {
  std::vector<exits::ExitHead> one =
      test::tiny_exits(backbone, {{.layer = 2, .kind = ExitKind::norm, .head = HeadKind::own}});
  one[0].head.mul_(1000.0);
  Engine probing(backbone, one, {.capacity = 16, .threshold = 1.0, .probe = true});
  EXPECT_EQ(probing.step(kPrompt).exit, kFinalLayer);
  EXPECT_EQ(probing.probes()[0].confidence, 1.0);
  Engine engine(backbone, one, {.capacity = 16, .threshold = 1.0});
  EXPECT_EQ(engine.step(kPrompt).exit, kFinalLayer);
  Engine below(backbone, one, {.capacity = 16, .threshold = 0.9999});
  EXPECT_EQ(below.step(kPrompt).exit, 0);
}

TEST_F(TinyEngineFacts, NothingWaitsAtAnExitBehindTheLastLayer) {
  const std::vector<exits::ExitHead> one =
      test::tiny_exits(backbone, {{.layer = 6, .kind = ExitKind::norm, .head = HeadKind::own}});
  Engine engine(backbone, one, {.capacity = 16, .threshold = 0.0});
  EXPECT_EQ(engine.step(kPrompt).exit, 0);
  EXPECT_EQ(engine.pending(), 0);
  expect_cache_complete(engine, backbone, kPrompt);
}

TEST_F(TinyEngineFacts, RunsInBfloat16) {
  const model::Backbone half = test::tiny_backbone(test::tiny_config(), 1, at::kBFloat16);
  const std::vector<exits::ExitHead> half_exits = test::tiny_exits(half, all_kinds());
  Engine engine(half, half_exits, {.capacity = 32, .threshold = 0.5});
  Prediction next = engine.step(kPrompt);
  for (int64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(next.logits.scalar_type(), at::kFloat);
    EXPECT_TRUE(next.exit == kFinalLayer || next.confidence >= 0.5);
    next = engine.step({&next.token, 1});
  }
  engine.flush();
  EXPECT_EQ(engine.cache(6).length, engine.length());
}

TEST_F(TinyEngineFacts, RefusesMoreTokensThanItsCapacity) {
  Engine engine(backbone, exits, {.capacity = 7});
  engine.step(kPrompt);
  const int64_t token = 1;
  EXPECT_THROW(engine.step({&token, 1}), base::InternalError);
  EXPECT_THROW(Engine(backbone, exits, {.capacity = 1000}), base::InternalError);
}

}  // namespace
}  // namespace ee::infer
