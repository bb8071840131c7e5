// Final logits and exits of every kind against Hugging Face transformers, on random models of several shapes.
#include "golden/golden.h"

namespace ee {
namespace {

class GoldenModel : public ::testing::TestWithParam<std::string> {
 protected:
  test::Golden golden_{GetParam()};

  static void expect_same(const at::Tensor& logits, const at::Tensor& expected) {
    EXPECT_LE(test::max_difference(logits, expected), 3e-5);
    EXPECT_TRUE(at::equal(logits.argmax(-1), expected.argmax(-1)));
  }
};
INSTANTIATE_TEST_SUITE_P(Shapes, GoldenModel, ::testing::ValuesIn(test::kGoldenModels),
                         [](const auto& info) { return info.param; });

TEST_P(GoldenModel, RopeEqualsTransformers) {
  const at::Tensor cos = golden_.at("rope.cos"), sin = golden_.at("rope.sin");  // [positions, head_dim]
  const model::RopeRows rows = golden_.backbone.rope.rows(0, cos.size(0));
  EXPECT_LE(test::max_difference(at::cat({rows.cos, rows.cos}, 1), cos), 1e-6);
  EXPECT_LE(test::max_difference(at::cat({rows.sin, rows.sin}, 1), sin), 1e-6);
}

TEST_P(GoldenModel, FinalLogitsEqualTransformers) {
  const model::Backbone& backbone = golden_.backbone;
  const at::Tensor stream =
      model::run_layers(backbone, golden_.at("tokens"), backbone.config.layers, [](auto&&...) {});
  const at::Tensor hidden = model::rms_norm(stream, backbone.final_norm, backbone.config.rms_norm_eps);
  expect_same(at::linear(hidden, backbone.head), golden_.at("logits"));
}

TEST_P(GoldenModel, ExitsOfEveryKindEqualTransformers) {
  for (const std::string& name : test::kGoldenExits) {
    SCOPED_TRACE(name);
    const exits::ExitHead exit = golden_.exit(name);
    const at::Tensor hidden = exit.forward(golden_.backbone, golden_.input(exit.spec));
    expect_same(exit.logits(golden_.backbone, hidden), golden_.at(name + "/logits"));
  }
}

TEST_P(GoldenModel, Bf16StaysNearF32) {
  const model::Backbone backbone = checkpoint::load_backbone(checkpoint::ModelFolder::open(golden_.folder),
                                                             {.precision = config::Precision::bf16});
  const at::Tensor stream = model::run_layers(backbone, golden_.at("tokens"), 3, [](auto&&...) {});
  EXPECT_EQ(stream.scalar_type(), at::kBFloat16);
  const at::Tensor hidden = model::rms_norm(stream, backbone.final_norm, backbone.config.rms_norm_eps);
  const at::Tensor error = at::linear(hidden, backbone.head).to(at::kFloat).sub(golden_.at("logits"));
  EXPECT_LE(error.square().mean().sqrt().item<float>(), 0.05);  // logits spread by 1.7
}

}  // namespace
}  // namespace ee
