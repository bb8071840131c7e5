// The terms of an exit's loss against autograd over whole logits.
#include "ee/exits/exit_loss.h"

#include "support/tiny_model.h"

namespace ee::exits {
namespace {

using config::ExitKind, config::HeadKind;

struct Case {
  const char* name;
  config::LossOptions loss;
  HeadKind head = HeadKind::shared;
  double temperature = 1.0;
  config::TokenWeights weights = config::TokenWeights::uniform;
};

class ExitLossTerms : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr double kScale = 0.04;

  ExitLossTerms() {
    at::manual_seed(11);
    hidden_ = at::randn({2, 9, 32});
    final_ = at::randn({2, 9, 32});
    targets_ = at::randint(97, {2, 9}, at::kLong);
    targets_[1][4] = kernels::kIgnoreToken;
  }

  ExitHead trainable() const {
    ExitHead exit = test::tiny_exit(
        backbone_,
        {.layer = 2, .kind = ExitKind::norm, .head = GetParam().head, .temperature = GetParam().temperature});
    visit_exit(backbone_.config, exit,
               [](const auto&, const auto&, at::Tensor& member) { member.requires_grad_(); });
    return exit;
  }

  std::vector<at::Tensor> gradients(ExitHead& exit) const {
    std::vector<at::Tensor> found;
    visit_exit(backbone_.config, exit,
               [&](const auto&, const auto&, at::Tensor& member) { found.push_back(member.grad()); });
    return found;
  }

  // Whole logits, autograd. Returns the sum of the cross entropy.
  double naive(ExitHead& exit) const {
    const auto& [name, loss, head, temperature, weights] = GetParam();
    const at::Tensor rows = exit.forward(backbone_, {hidden_, {}}).flatten(0, 1);
    const at::Tensor z = at::linear(rows, exit.head), targets = targets_.flatten();
    const at::Tensor log_p = z.div(temperature).log_softmax(-1);
    const at::Tensor counted = targets.ne(kernels::kIgnoreToken).to(at::kFloat);
    const at::Tensor ce = log_p.gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1).neg();
    const at::Tensor teacher =
        model::rms_norm(final_, backbone_.final_norm, backbone_.config.rms_norm_eps).flatten(0, 1);
    const at::Tensor log_t = at::linear(teacher, backbone_.head).div(loss.kl_temperature).log_softmax(-1);
    const at::Tensor kl = log_t.exp().mul(log_t.sub(z.div(loss.kl_temperature).log_softmax(-1))).sum(-1);
    at::Tensor total = ce.mul(loss.cross_entropy)
                           .add(kl.mul(loss.kl * loss.kl_temperature * loss.kl_temperature))
                           .add(rows.sub(teacher).square().mean(-1).mul(loss.hidden));
    if (weights == config::TokenWeights::confidence)
      total = total.mul(std::get<0>(log_p.exp().max(-1)).detach());
    total.mul(counted).sum().mul(kScale).backward();
    return ce.mul(counted).sum().item<double>();
  }

  model::Backbone backbone_ = test::tiny_backbone(test::tiny_config());
  at::Tensor hidden_, final_, targets_;
};

TEST_P(ExitLossTerms, EqualAutogradOverWholeLogits) {
  const Case& c = GetParam();
  ExitHead expected = trainable(), got = trainable();
  const double expected_loss = naive(expected);
  const Teacher teacher = make_teacher(backbone_, final_, targets_, c.loss, 0.0);
  const double loss =
      accumulate_exit_gradient(backbone_, got, {hidden_, {}}, targets_,
                               {.loss = c.loss, .token_weights = c.weights, .scale = kScale}, &teacher);
  EXPECT_NEAR(loss, expected_loss, 1e-5 * expected_loss);
  const auto a = gradients(got), b = gradients(expected);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i)
    EXPECT_LT(a[i].sub(b[i]).norm().item<double>(), 1e-4 * b[i].norm().item<double>()) << i;
}

INSTANTIATE_TEST_SUITE_P(
    All, ExitLossTerms,
    ::testing::Values(Case{"CrossEntropy", {}}, Case{"Kl", {.cross_entropy = 0, .kl = 1}},
                      Case{"KlAtItsTemperature", {.cross_entropy = 0, .kl = 1, .kl_temperature = 2}},
                      Case{"KlOfAWarmExit", {.cross_entropy = 0, .kl = 1}, HeadKind::shared, 1.5},
                      Case{"KlOwnHead", {.cross_entropy = 0, .kl = 1}, HeadKind::own},
                      Case{"MixtureOwnHead",
                           {.cross_entropy = 0.5, .kl = 2, .kl_temperature = 3, .hidden = 0.1},
                           HeadKind::own},
                      Case{"Hidden", {.cross_entropy = 0, .hidden = 1}},
                      Case{"MixtureByConfidence",
                           {.cross_entropy = 0.5, .kl = 0.5, .hidden = 2},
                           HeadKind::shared,
                           1.0,
                           config::TokenWeights::confidence}),
    [](const auto& info) { return info.param.name; });

// Sparse gradients with the dropped mass spread evenly stay near the exact ones.
TEST(ExitLoss, FilteredKlIsNearTheExactOne) {
  const model::Backbone backbone = test::tiny_backbone(test::tiny_config());
  at::manual_seed(5);
  const at::Tensor hidden = at::randn({2, 9, 32}), final = at::randn({2, 9, 32});
  const at::Tensor targets = at::randint(97, {2, 9}, at::kLong);
  const auto gradient = [&](double filter) {
    ExitHead exit = test::tiny_exit(backbone, {.layer = 2, .kind = ExitKind::norm});
    exit.norm.requires_grad_();
    const config::LossOptions loss{.cross_entropy = 0, .kl = 1};
    const Teacher teacher = make_teacher(backbone, final, targets, loss, filter);
    accumulate_exit_gradient(backbone, exit, {hidden, {}}, targets, {.loss = loss, .gradient_filter = filter},
                             &teacher);
    return exit.norm.grad();
  };
  const at::Tensor exact = gradient(0.0);
  EXPECT_LT(gradient(1e-3).sub(exact).norm().item<double>(), 0.05 * exact.norm().item<double>());
}

}  // namespace
}  // namespace ee::exits
