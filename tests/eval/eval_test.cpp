#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "ee/base/error.h"
#include "ee/eval/evaluate.h"
#include "ee/eval/score.h"
#include "ee/infer/engine.h"
#include "support/tiny_model.h"

namespace ee::eval {
namespace {

infer::Model tiny_model() {
  using config::ExitKind, config::ExitPosition, config::HeadKind;
  infer::Model model;
  model.backbone = test::tiny_backbone(test::tiny_config());
  model.exits = test::tiny_exits(
      model.backbone, {{.layer = 2, .kind = ExitKind::mlp, .head = HeadKind::own, .temperature = 1.5},
                       {.layer = 4, .kind = ExitKind::layer, .position = ExitPosition::before},
                       {.layer = 5, .kind = ExitKind::norm, .temperature = 0.5}});
  return model;
}

// One in five targets is a prompt's.
Sequences random_sequences(size_t count, size_t length) {
  std::mt19937 random(4);
  Sequences sequences(count);
  for (Sequence& sequence : sequences) {
    for (size_t i = 0; i < length; ++i) {
      sequence.tokens.push_back(static_cast<int64_t>(random() % 97));
      sequence.targets.push_back(random() % 5 == 0 ? kernels::kIgnoreToken
                                                   : static_cast<int64_t>(random() % 97));
    }
  }
  return sequences;
}

// Whole logits of one sequence, the plain way: every exit in order, then the final layer. [tokens, vocab].
std::vector<at::Tensor> naive_logits(const infer::Model& model, const std::vector<int64_t>& tokens,
                                     bool with_temperature) {
  const model::Backbone& backbone = model.backbone;
  std::vector<model::LayerTrace> traces(7);
  traces[0].output = backbone.embed(at::tensor(tokens, at::kLong).view({1, -1}));
  for (size_t layer = 1; layer <= 6; ++layer) {
    traces[layer] = model::decoder_layer(backbone.config, backbone.layer(static_cast<int64_t>(layer)),
                                         traces[layer - 1].output, backbone.rope);
  }
  std::vector<at::Tensor> logits;
  for (const exits::ExitHead& exit : model.exits) {
    const auto input = exits::exit_input(exit.spec, traces[static_cast<size_t>(exit.spec.depth())]);
    const at::Tensor raw = at::matmul(exit.forward(backbone, input), exit.head.t())[0];
    logits.push_back(with_temperature ? raw / exit.spec.temperature : raw);
  }
  const at::Tensor normed =
      model::rms_norm(traces[6].output, backbone.final_norm, backbone.config.rms_norm_eps);
  logits.push_back(at::matmul(normed, backbone.head.t())[0]);
  return logits;
}

TEST(Score, EqualsLogSoftmaxOfWholeLogits) {
  const infer::Model model = tiny_model();
  const std::vector<int64_t> tokens = random_sequences(1, 20)[0].tokens;
  const std::vector<LayerScores> scores = score_tokens(model, tokens, "test");
  const std::vector<at::Tensor> naive = naive_logits(model, tokens, true);
  ASSERT_EQ(scores.size(), 4u);
  const std::vector<std::string> names = {"final", "2", "4", "5"};
  for (size_t l = 0; l < 4; ++l) {
    EXPECT_EQ(scores[l].name, names[l]);
    const at::Tensor log_p = at::log_softmax(naive[(l + 3) % 4], -1);
    ASSERT_EQ(scores[l].argmax.size(), 20u);
    ASSERT_EQ(scores[l].logprobs.size(), 19u);
    for (size_t i = 0; i < 20; ++i) {
      const auto row = static_cast<int64_t>(i);
      EXPECT_EQ(scores[l].argmax[i], log_p[row].argmax().item<int64_t>());
      if (i > 0) {
        EXPECT_NEAR(scores[l].logprobs[i - 1], log_p[row - 1][tokens[i]].item<double>(), 1e-4);
      }
    }
  }
}

TEST(Score, OneTokenHasAPredictionAndNoLogProbability) {
  const infer::Model model = tiny_model();
  const auto scores = score_tokens(model, std::vector<int64_t>{5}, "test");
  EXPECT_TRUE(scores[0].logprobs.empty());
  EXPECT_EQ(scores[0].argmax.size(), 1u);
}

TEST(Score, RawLogitsLeaveTheTemperatureOut) {
  const infer::Model model = tiny_model();
  const std::vector<int64_t> tokens = random_sequences(1, 9)[0].tokens;
  const std::vector<at::Tensor> naive = naive_logits(model, tokens, false);
  std::vector<std::string> names;
  raw_logits(model, tokens, "test", [&](const NamedLogits& layer) {
    EXPECT_EQ(layer.logits.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::allclose(layer.logits, naive[names.size()], 1e-4, 1e-4)) << layer.name;
    names.push_back(layer.name);
  });
  EXPECT_THAT(names, ::testing::ElementsAre("2", "4", "5", "final"));
}

TEST(Score, RefusesTokensThatDoNotFitTheModel) {
  const infer::Model model = tiny_model();
  for (const std::vector<int64_t>& wrong : {std::vector<int64_t>{}, std::vector<int64_t>{1, 97},
                                            std::vector<int64_t>{-1}, std::vector<int64_t>(129, 1)}) {
    EXPECT_THROW(score_tokens(model, wrong, "line 1"), base::UserError);
  }
}

TEST(Evaluate, EqualsCountingOverWholeLogits) {
  const infer::Model model = tiny_model();
  const auto sequences =
      random_sequences(23, 100);  // several passes of several sequences, the last one smaller
  const Evaluation ours = evaluate(model, sequences);

  constexpr size_t kHeads = 4;
  double loss[kHeads] = {};
  int64_t agree[kHeads] = {}, leave[kHeads][4] = {}, leave_agree[kHeads][4] = {}, tokens = 0;
  for (const Sequence& sequence : sequences) {
    const auto heads = naive_logits(model, sequence.tokens, true);
    for (size_t i = 0; i < sequence.tokens.size(); ++i) {
      if (sequence.targets[i] == kernels::kIgnoreToken) continue;
      ++tokens;
      std::vector<at::Tensor> p;
      for (const at::Tensor& logits : heads) {
        p.push_back(at::softmax(logits[static_cast<int64_t>(i)].to(at::kDouble), -1));
      }
      const auto token_of = [&](size_t h) { return p[h].argmax().item<int64_t>(); };
      for (size_t h = 0; h < kHeads; ++h) {
        loss[h] -= std::log(p[h][sequence.targets[i]].item<double>());
        agree[h] += token_of(h) == token_of(kHeads - 1);
      }
      for (size_t t = 0; t < 4; ++t) {
        size_t h = 0;
        while (h + 1 < kHeads && p[h].max().item<double>() < kThresholds[t]) {
          ++h;
        }
        ++leave[h][t];
        leave_agree[h][t] += token_of(h) == token_of(kHeads - 1);
      }
    }
  }
  EXPECT_EQ(ours.tokens, tokens);
  ASSERT_EQ(ours.exits.size(), kHeads - 1);
  for (size_t h = 0; h < kHeads; ++h) {
    const ExitResult& result = h + 1 < kHeads ? ours.exits[h] : ours.final;
    EXPECT_NEAR(result.loss, loss[h] / static_cast<double>(tokens), 1e-4);
    EXPECT_EQ(result.agree, agree[h]);
    for (size_t t = 0; t < 4; ++t) {
      EXPECT_EQ(result.thresholds[t].leave, leave[h][t]) << "head " << h << " at " << kThresholds[t];
      EXPECT_EQ(result.thresholds[t].agree, leave_agree[h][t]) << "head " << h << " at " << kThresholds[t];
    }
  }
  EXPECT_GT(leave[0][3], 0);  // otherwise this tests nothing
  EXPECT_GT(leave[2][1], 0);
  EXPECT_GT(leave[3][0], 0);
}

TEST(Evaluate, ReportsOneJsonObject) {
  Sequences sequences = random_sequences(2, 32);
  sequences[1].targets.assign(32, kernels::kIgnoreToken);
  sequences[1].targets[5] = 3;
  std::ranges::fill(sequences[0].targets, 7);
  const Evaluation evaluation = evaluate(tiny_model(), sequences);
  const auto json = nlohmann::json::parse(to_json(evaluation));
  EXPECT_EQ(json["tokens"], 33);
  ASSERT_EQ(json["exits"].size(), 3u);
  const auto& exit = json["exits"][1];
  EXPECT_EQ(exit["layer"], 4);
  EXPECT_DOUBLE_EQ(exit["perplexity"], std::exp(exit["loss"].get<double>()));
  EXPECT_EQ(json["final"]["agreement"], 1.0);
  for (const char* threshold : {"0.9", "0.8", "0.6", "0.4"}) {
    double shares = json["final"]["thresholds"][threshold]["share"];
    for (const auto& each : json["exits"]) {
      const auto& at = each["thresholds"][threshold];
      shares += at["share"].get<double>();
      EXPECT_EQ(at["share"] == 0.0, at["agreement"].is_null());
    }
    EXPECT_DOUBLE_EQ(shares, 1.0);
  }
}

TEST(Evaluate, TableHasOneRowPerExitAndOneForTheFinalLayer) {
  const std::string table = to_table(evaluate(tiny_model(), random_sequences(2, 32)));
  EXPECT_EQ(std::ranges::count(table, '\n'), 8);  // two of head, three exits, final, mean, tokens
  EXPECT_THAT(table, ::testing::HasSubstr("\n final  "));
}

}  // namespace
}  // namespace ee::eval
