// Gradients of exits of every kind against PyTorch's autograd through transformers' modules.
#include "ee/exits/exit_loss.h"
#include "golden/golden.h"

namespace ee {
namespace {

constexpr double kScale = 0.7;  // SCALE of make_golden.py

class GoldenGradient : public ::testing::TestWithParam<std::string> {
 protected:
  test::Golden golden_{GetParam()};

  double accumulate(exits::ExitHead& exit, config::TokenWeights weights) const {
    return exits::accumulate_exit_gradient(golden_.backbone, exit, golden_.input(exit.spec),
                                           golden_.at("targets"),
                                           {.token_weights = weights, .scale = kScale / counted()});
  }
  double counted() const { return golden_.at("targets").ne(kernels::kIgnoreToken).sum().item<double>(); }

  // Every own tensor's gradient is `times` the golden one, to a millionth of the largest.
  void expect_gradients(const std::string& name, exits::ExitHead& exit, const std::string& kind,
                        double times) {
    exits::visit_exit(golden_.backbone.config, exit,
                      [&](const std::string& key, const auto&, at::Tensor& member) {
                        ASSERT_TRUE(member.grad().defined()) << key;
                        const at::Tensor expected = golden_.at(name + "/" + kind + "/" + key).mul(times);
                        EXPECT_LE(test::max_difference(member.grad(), expected),
                                  1e-5 * expected.abs().max().item<double>() + 1e-8)
                            << name << " " << kind << " " << key;
                      });
  }
};
INSTANTIATE_TEST_SUITE_P(Shapes, GoldenGradient, ::testing::Values("gqa_head_dim", "bias"),
                         [](const auto& info) { return info.param; });

TEST_P(GoldenGradient, EqualsAutogradWithUniformWeights) {
  for (const std::string& name : test::kGoldenExits) {
    exits::ExitHead exit = golden_.exit(name);
    accumulate(exit, config::TokenWeights::uniform);
    expect_gradients(name, exit, "uniform", 1.0);
  }
}

TEST_P(GoldenGradient, EqualsAutogradWithConfidenceWeights) {
  for (const std::string& name : test::kGoldenExits) {
    exits::ExitHead exit = golden_.exit(name);
    accumulate(exit, config::TokenWeights::confidence);
    expect_gradients(name, exit, "confidence", 1.0);
  }
}

TEST_P(GoldenGradient, AddsUpOverMicroBatches) {
  const std::string name = "2 mlp after own own 2";
  exits::ExitHead exit = golden_.exit(name);
  accumulate(exit, config::TokenWeights::uniform);
  accumulate(exit, config::TokenWeights::uniform);
  expect_gradients(name, exit, "uniform", 2.0);
}

TEST_P(GoldenGradient, LossIsThePlainSumOverCountedTokens) {
  for (const std::string& name : test::kGoldenExits) {
    exits::ExitHead exit = golden_.exit(name);
    const at::Tensor log_p = golden_.at(name + "/logits").log_softmax(-1).flatten(0, 1);  // [tokens, vocab]
    const at::Tensor targets = golden_.at("targets").flatten();
    double sum = 0, counted = 0;
    for (int64_t i = 0; i < targets.numel(); ++i) {
      if (const auto target = targets[i].item<int64_t>(); target != kernels::kIgnoreToken) {
        sum -= log_p[i][target].item<double>();
        ++counted;
      }
    }
    EXPECT_NEAR(accumulate(exit, config::TokenWeights::confidence), sum, 1e-5 * counted) << name;
  }
}

TEST_P(GoldenGradient, StatsEqualTheLogits) {
  for (const std::string& name : test::kGoldenExits) {
    const exits::ExitHead exit = golden_.exit(name);
    const auto stats =
        exits::exit_stats(golden_.backbone, exit, golden_.input(exit.spec), golden_.at("targets"));
    const at::Tensor p = golden_.at(name + "/logits").softmax(-1).flatten(0, 1);
    EXPECT_TRUE(at::equal(stats.argmax, p.argmax(-1)));
    EXPECT_LE(test::max_difference(stats.confidence, p.amax(-1)), 1e-5);
    EXPECT_FALSE(stats.loss.requires_grad());
  }
}

}  // namespace
}  // namespace ee
