#include "ee/train/evaluation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/tiny_model.h"
#include "train/sample_text.h"

namespace ee::train {

// One sequence at a time, whole logits, one token at a time.
TEST(Evaluation, EqualsNaiveLossAndAgreement) {
  const auto backbone = test::tiny_backbone(test::tiny_config());
  const auto exits = test::tiny_exits(backbone, {{.layer = 2}, {.layer = 5, .temperature = 2.0}});
  const auto source = sample_source(16);
  const auto result = evaluate(backbone, exits, source, 5, 2, [] { return false; });
  ASSERT_TRUE(result);
  EXPECT_EQ(result->tokens, 5 * 16);

  std::vector<double> loss(3, 0.0), agree(2, 0.0);
  for (int64_t sample = 0; sample < 5; ++sample) {
    const auto batch = source.at(sample, 1);
    std::vector<at::Tensor> logits(3);
    const auto last = model::run_layers(backbone, batch.inputs, 6, [&](int64_t depth, const auto& trace) {
      for (size_t i = 0; i < 2; ++i)
        if (exits[i].spec.depth() == depth)
          logits[i] = exits[i].logits(backbone,
                                      exits[i].forward(backbone, exits::exit_input(exits[i].spec, trace)))[0];
    });
    logits[2] = at::linear(model::rms_norm(last, backbone.final_norm, backbone.config.rms_norm_eps),
                           backbone.head)[0];
    for (size_t i = 0; i < 3; ++i) {
      const auto log_p = at::log_softmax(logits[i], -1);
      for (int64_t t = 0; t < 16; ++t) {
        loss[i] -= log_p[t][batch.targets[0][t].item<int64_t>()].item<double>() / 80;
        if (i < 2)
          agree[i] += (logits[i][t].argmax().item<int64_t>() == logits[2][t].argmax().item<int64_t>()) / 80.0;
      }
    }
  }
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(result->exits[i].layer, exits[i].spec.layer);
    EXPECT_NEAR(result->exits[i].loss, loss[i], 1e-4);
    EXPECT_NEAR(result->exits[i].perplexity(), std::exp(loss[i]), 1e-4 * std::exp(loss[i]));
    EXPECT_NEAR(result->exits[i].agreement, agree[i], 1e-9);
  }
  EXPECT_NEAR(result->final.loss, loss[2], 1e-4);
  EXPECT_NEAR(result->mean_loss(), (loss[0] + loss[1]) / 2, 1e-4);
}

TEST(Evaluation, LastLayerAsAnExitAgreesWithItself) {
  const auto backbone = test::tiny_backbone(test::tiny_config());
  exits::ExitHead exit;
  exit.spec = {.layer = 6, .kind = config::ExitKind::norm, .norm = config::NormKind::shared};
  exits::bind_shared(exit, backbone);
  const auto result = evaluate(backbone, {exit}, sample_source(16), 4, 4, [] { return false; });
  EXPECT_EQ(result->exits[0].agreement, 1.0);
  EXPECT_EQ(result->exits[0].loss, result->final.loss);
}

TEST(Evaluation, StopsWithoutAResult) {
  const auto backbone = test::tiny_backbone(test::tiny_config());
  int calls = 0;
  EXPECT_FALSE(evaluate(backbone, {}, sample_source(16), 8, 2, [&] { return ++calls == 3; }));
  EXPECT_EQ(calls, 3);
}

TEST(Evaluation, TakesNoMoreSequencesThanThereAre) {
  const auto backbone = test::tiny_backbone(test::tiny_config());
  const auto source = sample_source(16, 12);
  const auto result = evaluate(backbone, {}, source, 1000, 2, [] { return false; });
  EXPECT_EQ(result->tokens, source.sequences().size() * 16);
}

}  // namespace ee::train
