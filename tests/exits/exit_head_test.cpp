#include "ee/exits/exit_head.h"

#include "ee/exits/exit_loss.h"
#include "support/tiny_model.h"

namespace ee::exits {
namespace {

using config::ExitKind;
using config::HeadKind;

TEST(ParameterCount, IsTheSumOfTheExitsOwnTensors) {
  const config::ModelConfig config = test::tiny_config();  // hidden 32, intermediate 48, vocab 97
  constexpr int64_t kMlp = 3 * 32 * 48, kHead = 97 * 32, kNorm = 32;
  constexpr int64_t kLayer = kMlp + 2 * 32 * 32 + 2 * 16 * 32 + 2 * kNorm;
  EXPECT_EQ(parameter_count(config, {.layer = 2, .kind = ExitKind::mlp}), kMlp + kNorm);
  EXPECT_EQ(parameter_count(config, {.layer = 2, .kind = ExitKind::norm, .head = HeadKind::own}),
            kHead + kNorm);
  EXPECT_EQ(parameter_count(config, {.layer = 2, .kind = ExitKind::layer}), kLayer + kNorm);
  EXPECT_EQ(parameter_count(config, {.layer = 2, .kind = ExitKind::norm, .norm = config::NormKind::shared}),
            0);
}

TEST(VisitExit, NamesTensorsByLayerAndPart) {
  ExitHead exit;
  exit.spec = {.layer = 10, .kind = ExitKind::mlp, .head = HeadKind::own};
  std::vector<std::string> names;
  visit_exit(test::tiny_config(), exit,
             [&](const std::string& name, const auto&, at::Tensor&) { names.push_back(name); });
  EXPECT_THAT(names, ::testing::ElementsAre("exits.10.mlp.gate_proj.weight", "exits.10.mlp.up_proj.weight",
                                            "exits.10.mlp.down_proj.weight", "exits.10.norm.weight",
                                            "exits.10.head.weight"));
}

TEST(ExitHead, LayerExitWithItsCacheEqualsWholeForward) {
  const model::Backbone backbone = test::tiny_backbone(test::tiny_config());
  const ExitHead exit = test::tiny_exit(backbone, {.layer = 2, .kind = ExitKind::layer});
  const at::Tensor hidden = at::randn({2, 9, 32});
  const at::Tensor whole = exit.forward(backbone, {.hidden = hidden, .mlp_input = {}});
  auto cache = model::LayerCache::allocate(backbone.config, 2, 9, backbone.options());
  int64_t done = 0;
  for (const int64_t piece : {4, 1, 3, 1}) {
    const at::Tensor part =
        exit.forward(backbone, {.hidden = hidden.narrow(1, done, piece), .mlp_input = {}}, &cache);
    EXPECT_TRUE(at::allclose(part, whole.narrow(1, done, piece), 1e-4, 1e-5)) << done;
    done += piece;
  }
}

TEST(ExitHead, TemperatureDividesTheLogits) {
  const model::Backbone backbone = test::tiny_backbone(test::tiny_config());
  const at::Tensor hidden = at::randn({1, 3, 32});
  const ExitHead plain = test::tiny_exit(backbone, {.layer = 2});
  const ExitHead cooled = test::tiny_exit(backbone, {.layer = 2, .temperature = 2.5});
  EXPECT_TRUE(at::allclose(cooled.logits(backbone, hidden).mul(2.5), plain.logits(backbone, hidden)));
}

// Masters stay f32 while the backbone runs in bf16.
TEST(ExitLoss, Bf16ActivationsGiveF32GradientsNearF32Ones) {
  const model::Backbone narrow = test::tiny_backbone(test::tiny_config(), 1, at::kBFloat16);
  const model::Backbone wide = test::tiny_backbone(test::tiny_config());
  const config::ExitSpec spec{.layer = 2, .kind = ExitKind::mlp, .head = HeadKind::own};
  const at::Tensor hidden = at::randn({2, 9, 32}), mlp_input = at::randn({2, 9, 32});
  const at::Tensor targets = at::randint(97, {2, 9}, at::kLong);
  const auto gradients = [&](const model::Backbone& backbone) {
    ExitHead exit = test::tiny_exit(wide, spec);
    visit_exit(wide.config, exit,
               [](const auto&, const auto&, at::Tensor& member) { member.requires_grad_(); });
    const at::ScalarType dtype = backbone.embedding.scalar_type();
    accumulate_exit_gradient(backbone, exit, {hidden.to(dtype), mlp_input.to(dtype)}, targets, {});
    std::vector<at::Tensor> found;
    visit_exit(wide.config, exit,
               [&](const auto&, const auto&, at::Tensor& member) { found.push_back(member.grad()); });
    return found;
  };
  const auto exact = gradients(wide), rounded = gradients(narrow);
  ASSERT_EQ(exact.size(), 5u);
  for (size_t i = 0; i < exact.size(); ++i) {
    EXPECT_EQ(rounded[i].scalar_type(), at::kFloat);
    EXPECT_LE(rounded[i].sub(exact[i]).norm().item<double>(), 0.05 * exact[i].norm().item<double>()) << i;
  }
}

TEST(ExitLoss, NothingToLearnFromIsNoGradient) {
  const model::Backbone backbone = test::tiny_backbone(test::tiny_config());
  ExitHead exit = test::tiny_exit(backbone, {.layer = 2, .kind = ExitKind::norm});
  exit.norm.requires_grad_();
  const at::Tensor targets = at::full({1, 4}, kernels::kIgnoreToken, at::kLong);
  EXPECT_EQ(accumulate_exit_gradient(backbone, exit, {at::randn({1, 4, 32}), {}}, targets, {}), 0.0);
  EXPECT_FALSE(exit.norm.grad().defined());
}

TEST(ExitLoss, LeavesBackboneWithoutGradient) {
  const model::Backbone backbone = test::tiny_backbone(test::tiny_config());
  ExitHead exit = test::tiny_exit(backbone, {.layer = 2, .kind = ExitKind::norm});
  exit.norm.requires_grad_();
  const ExitInput input{at::randn({1, 4, 32}), {}};
  accumulate_exit_gradient(backbone, exit, input, at::randint(97, {1, 4}, at::kLong), {});
  EXPECT_TRUE(exit.norm.grad().defined());
  EXPECT_FALSE(input.hidden.grad().defined());
  EXPECT_FALSE(backbone.head.grad().defined());
}

}  // namespace
}  // namespace ee::exits
