#include "ee/exits/exit_init.h"

#include "support/tiny_model.h"

namespace ee::exits {
namespace {

using config::ExitKind;
using config::HeadKind;
using config::InitKind;
using config::NormKind;

// Hidden state of an exit at `layer` on some tokens, and the trace of that layer.
at::Tensor exit_hidden(const model::Backbone& backbone, const ExitHead& exit, const at::Tensor& tokens) {
  at::Tensor hidden;
  model::run_layers(backbone, tokens, exit.spec.depth(), [&](int64_t depth, const model::LayerTrace& trace) {
    if (depth == exit.spec.depth()) {
      hidden = exit.forward(backbone, exit_input(exit.spec, trace));
    }
  });
  return hidden;
}

class MakeExit : public ::testing::Test {
 protected:
  model::Backbone backbone_ = test::tiny_backbone(test::tiny_config());
  at::Tensor tokens_ = at::randint(97, {2, 7}, at::kLong);

  at::Tensor stream_after(int64_t depth) const {
    return model::run_layers(backbone_, tokens_, depth, [](auto&&...) {});
  }
  at::Tensor final_norm(const at::Tensor& x) const {
    return model::rms_norm(x, backbone_.final_norm, backbone_.config.rms_norm_eps);
  }
};

TEST_F(MakeExit, CopiedMlpExitEqualsStoppingAtItsLayer) {
  const ExitHead exit = make_exit(backbone_, {.layer = 3, .kind = ExitKind::mlp}, 1);
  EXPECT_TRUE(at::allclose(exit_hidden(backbone_, exit, tokens_), final_norm(stream_after(3)), 1e-4, 1e-5));
}

TEST_F(MakeExit, CopiedNormExitBeforeEqualsAfterThePreviousLayer) {
  const ExitHead exit =
      make_exit(backbone_, {.layer = 3, .kind = ExitKind::norm, .position = config::ExitPosition::before}, 1);
  EXPECT_TRUE(at::allclose(exit_hidden(backbone_, exit, tokens_), final_norm(stream_after(2)), 1e-4, 1e-5));
}

TEST_F(MakeExit, CopiedLayerExitInFrontOfTheLastLayerEqualsTheModel) {
  const ExitHead exit = make_exit(backbone_, {.layer = 5, .kind = ExitKind::layer}, 1);
  EXPECT_TRUE(at::allclose(exit_hidden(backbone_, exit, tokens_), final_norm(stream_after(6)), 1e-4, 1e-5));
}

TEST_F(MakeExit, EmbeddingExitWithoutNormReadsTheStreamAsItIs) {
  const ExitHead exit =
      make_exit(backbone_, {.layer = 2, .kind = ExitKind::embedding, .norm = NormKind::none}, 1);
  EXPECT_FALSE(exit.norm.defined());
  EXPECT_TRUE(at::equal(exit_hidden(backbone_, exit, tokens_), stream_after(2)));
}

TEST_F(MakeExit, CopiesNeverAliasTheBackbone) {
  ExitHead exit = make_exit(backbone_, {.layer = 3, .kind = ExitKind::mlp, .head = HeadKind::own}, 1);
  visit_exit(backbone_.config, exit, [](const auto&, const auto&, at::Tensor& member) { member.zero_(); });
  EXPECT_GT(backbone_.layers[2].mlp.gate.weight.abs().sum().item<float>(), 0);
  EXPECT_GT(backbone_.final_norm.abs().sum().item<float>(), 0);
  EXPECT_GT(backbone_.head.abs().sum().item<float>(), 0);
}

TEST_F(MakeExit, SharedPartsAreTheBackbonesOwn) {
  const ExitHead exit =
      make_exit(backbone_, {.layer = 3, .kind = ExitKind::norm, .norm = NormKind::shared}, 1);
  EXPECT_TRUE(exit.head.is_same(backbone_.head));
  EXPECT_TRUE(exit.norm.is_same(backbone_.final_norm));
}

TEST_F(MakeExit, LayerExitNeedsAllLayers) {
  backbone_.layers.pop_back();
  EXPECT_THROW(make_exit(backbone_, {.layer = 3, .kind = ExitKind::layer}, 1), base::InternalError);
}

TEST_F(MakeExit, RandomWeightsDependOnSeedAndLayerOnly) {
  const auto gate = [&](int64_t layer, uint64_t seed) {
    return make_exit(backbone_, {.layer = layer, .kind = ExitKind::mlp, .init = InitKind::random}, seed)
        .mlp.gate.weight;
  };
  EXPECT_TRUE(at::equal(gate(3, 1), gate(3, 1)));
  EXPECT_FALSE(at::equal(gate(3, 1), gate(3, 2)));
  EXPECT_FALSE(at::equal(gate(3, 1), gate(4, 1)));
}

TEST_F(MakeExit, RandomWeightsHaveTheStatedSpread) {
  config::ModelConfig config = test::tiny_config();
  config.hidden_size = 128;
  config.intermediate_size = 256;
  config.mlp_bias = true;
  config.layers = 1;
  const ExitHead exit = make_exit(test::tiny_backbone(config),
                                  {.layer = 8, .kind = ExitKind::layer, .init = InitKind::random}, 1);
  const auto spread = [](const at::Tensor& t) { return t.std().item<double>(); };
  EXPECT_NEAR(spread(exit.layer.mlp.up.weight), 0.02, 0.0005);
  EXPECT_NEAR(spread(exit.layer.attention.q.weight), 0.02, 0.0005);
  EXPECT_NEAR(spread(exit.layer.mlp.down.weight), 0.02 / 4, 0.0002);
  EXPECT_NEAR(spread(exit.layer.attention.o.weight), 0.02 / 4, 0.0002);
  EXPECT_TRUE(at::equal(exit.norm, at::ones({128})));
  EXPECT_TRUE(at::equal(exit.layer.input_norm, at::ones({128})));
  EXPECT_TRUE(at::equal(exit.layer.mlp.up.bias, at::zeros({256})));
}

}  // namespace
}  // namespace ee::exits
