#include "ee/exits/exit_fit.h"

#include "ee/exits/exit_init.h"
#include "support/tiny_model.h"

namespace ee::exits {
namespace {

using config::ExitKind, config::NormKind, config::TranslatorKind;

class ExitFit : public ::testing::Test {
 protected:
  static constexpr int64_t kTokens = 600;

  ExitFit() {
    at::manual_seed(3);
    hidden_ = at::randn({2, kTokens / 2, 32});
    mlp_input_ = at::randn({2, kTokens / 2, 32});
    final_ = at::randn({2, kTokens / 2, 32}).mul(3).add(hidden_);
  }

  ExitHead exit_with(const config::ExitSpec& spec) const { return test::tiny_exit(backbone_, spec); }

  RidgeSolution solve(const ExitHead& exit) const {
    const FitRows rows = fit_rows(backbone_, exit, {hidden_, mlp_input_}, final_, targets_);
    EXPECT_EQ(rows.features.size(1), fit_features(backbone_.config, exit.spec));
    auto train = NormalSums::zeros(rows.features.size(1), 32, at::kCPU), held_out = train + train;
    train.add(rows.features.slice(0, 0, 500), rows.target.slice(0, 0, 500));
    held_out.add(rows.features.slice(0, 500), rows.target.slice(0, 500));
    return solve_ridge(train, held_out, exit.spec.has_translator());
  }

  void apply(ExitHead& exit, const RidgeSolution& solution) const {
    const auto tensors = fitted_tensors(backbone_, exit.spec, solution);
    const std::string prefix = fmt::format("exits.{}.", exit.spec.layer);
    size_t used = 0;
    visit_exit(backbone_.config, exit, [&](const std::string& name, const auto&, at::Tensor& member) {
      const auto part = name.substr(prefix.size());
      EXPECT_EQ(is_fitted(exit.spec, part), tensors.contains(part)) << name;
      if (tensors.contains(part)) member = tensors.at(part), ++used;
    });
    EXPECT_EQ(used, tensors.size());
  }

  // Squared distance of what the exit's norm sees to what it should see.
  double error(const ExitHead& exit) const {
    const at::Tensor seen = exit.unnormalized(backbone_, {hidden_, mlp_input_});
    const at::Tensor target = final_.div(final_.square().mean(-1, true).add(1e-5).sqrt());
    return seen.sub(target).square().mean().item<double>();
  }

  model::Backbone backbone_ = test::tiny_backbone(test::tiny_config());
  at::Tensor hidden_, mlp_input_, final_;  // [batch, seq, hidden]
  at::Tensor targets_ = at::zeros({2, kTokens / 2}, at::kLong);
};

TEST_F(ExitFit, OfATranslatorIsTheRegressionOntoTheNormalizedFinalState) {
  ExitHead exit = exit_with({.layer = 2, .kind = ExitKind::linear, .translator = TranslatorKind::full});
  const auto solution = solve(exit);
  apply(exit, solution);
  const at::Tensor target = final_.div(final_.square().mean(-1, true).add(1e-5).sqrt());
  const double variance = target.sub(target.mean(at::IntArrayRef{0, 1})).square().mean().item<double>();
  EXPECT_NEAR(error(exit), solution.unexplained * variance, 0.15 * variance);
  EXPECT_LT(error(exit), 0.95 * variance);
}

TEST_F(ExitFit, AnMlpExitsDownProjectionAndTranslatorTogetherAreBetterThanEach) {
  const config::ExitSpec both{.layer = 2, .kind = ExitKind::mlp, .translator = TranslatorKind::full};
  const config::ExitSpec linear{.layer = 2, .kind = ExitKind::linear, .translator = TranslatorKind::full};
  // The target is a function of the MLP's activations and of the stream.
  const ExitHead source = exit_with(both);
  final_ = source.unnormalized(backbone_, {hidden_, mlp_input_});
  const auto fitted = [&](const config::ExitSpec& spec) {
    ExitHead exit = exit_with(spec);
    apply(exit, solve(exit));
    return error(exit);
  };
  EXPECT_LT(fitted(both), 0.9 * fitted(linear));
  EXPECT_LT(fitted(both), 0.9 * error(exit_with(both)));
}

// Without a translator the stream passes as it is: what is solved is the sum with it, each token over the
// scale of its final state.
TEST_F(ExitFit, OfADownProjectionAloneReachesAFinalStateThatItCanReach) {
  ExitHead exit = exit_with({.layer = 2, .kind = ExitKind::mlp});
  final_ = exit.unnormalized(backbone_, {hidden_, mlp_input_});
  const at::Tensor expected = exit.mlp.down.weight.clone();
  apply(exit, solve(exit));
  EXPECT_LT(exit.mlp.down.weight.sub(expected).norm().item<double>(), 1e-2 * expected.norm().item<double>());
}

TEST_F(ExitFit, AnExitWithoutANormAimsBehindTheFinalNorm) {
  const ExitHead exit = exit_with(
      {.layer = 2, .kind = ExitKind::embedding, .norm = NormKind::none, .translator = TranslatorKind::full});
  const FitRows rows = fit_rows(backbone_, exit, {hidden_, {}}, final_, targets_);
  const at::Tensor expected = model::rms_norm(final_, backbone_.final_norm, backbone_.config.rms_norm_eps);
  EXPECT_TRUE(at::allclose(rows.target, expected.flatten(0, 1), 1e-5, 1e-5));
  EXPECT_TRUE(at::equal(rows.features, hidden_.flatten(0, 1)));
}

TEST_F(ExitFit, TokensWithoutATargetAreLeftOut) {
  const ExitHead exit = exit_with({.layer = 2, .kind = ExitKind::mlp, .translator = TranslatorKind::full});
  const FitRows all = fit_rows(backbone_, exit, {hidden_, mlp_input_}, final_, targets_);
  targets_.slice(1, 0, 7).fill_(kernels::kIgnoreToken);
  const FitRows rows = fit_rows(backbone_, exit, {hidden_, mlp_input_}, final_, targets_);
  const auto expected = [&](const at::Tensor& whole) {
    return whole.view({2, kTokens / 2, -1}).slice(1, 7).flatten(0, 1);
  };
  EXPECT_TRUE(at::allclose(rows.features, expected(all.features)));
  EXPECT_TRUE(at::allclose(rows.target, expected(all.target)));
}

TEST_F(ExitFit, ALowRankTranslatorOfFullRankIsTheFullOne) {
  ExitHead full = exit_with({.layer = 2, .kind = ExitKind::linear, .translator = TranslatorKind::full});
  const auto solution = solve(full);
  apply(full, solution);
  double last = 1e9;
  for (const int64_t rank : {2, 8, 32}) {
    ExitHead low = exit_with({.layer = 2,
                              .kind = ExitKind::linear,
                              .translator = TranslatorKind::low_rank,
                              .translator_rank = rank});
    apply(low, solution);
    const double distance = low.unnormalized(backbone_, {hidden_, {}})
                                .sub(full.unnormalized(backbone_, {hidden_, {}}))
                                .norm()
                                .item<double>();
    EXPECT_LT(distance, last) << rank;
    last = distance;
  }
  EXPECT_LT(last, 1e-3);
}

TEST_F(ExitFit, ACopiedTranslatorChangesNothing) {
  for (const auto kind : {TranslatorKind::full, TranslatorKind::low_rank}) {
    const ExitInput input{hidden_, mlp_input_};
    const ExitHead with = make_exit(backbone_, {.layer = 2, .translator = kind}, 1);
    const ExitHead without = make_exit(backbone_, {.layer = 2}, 1);
    EXPECT_TRUE(at::allclose(with.forward(backbone_, input), without.forward(backbone_, input), 1e-5, 1e-5));
  }
}

}  // namespace
}  // namespace ee::exits
