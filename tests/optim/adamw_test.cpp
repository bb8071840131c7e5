#include "ee/optim/adamw.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace ee::optim {
using config::ClipMode;
using testing::DoubleNear;
using testing::ElementsAre;

// The algorithm as published, one number at a time.
struct NaiveAdamW {
  config::OptimizerOptions o;
  std::vector<double> w, m, v;

  void step(const std::vector<double>& g, double lr, int t, bool decay) {
    for (size_t i = 0; i < w.size(); ++i) {
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * g[i];
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * g[i] * g[i];
      const double m_hat = m[i] / (1 - std::pow(o.beta1, t)), v_hat = v[i] / (1 - std::pow(o.beta2, t));
      w[i] -= lr * ((decay ? o.weight_decay : 0.0) * w[i] + m_hat / (std::sqrt(v_hat) + o.eps));
    }
  }
};

std::vector<double> to_doubles(const at::Tensor& tensor) {
  const auto flat = tensor.detach().to(at::kDouble).contiguous().reshape(-1);
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

ParameterGroup group_of(std::vector<at::Tensor> masters, int64_t layer = 1) {
  ParameterGroup group{.layer = layer, .parameters = {}};
  for (auto& master : masters) group.parameters.push_back(Parameter::make("p", std::move(master)));
  return group;
}

TEST(AdamW, EqualsTheNaiveAlgorithm) {
  const config::OptimizerOptions options{.weight_decay = 0.1, .clip = ClipMode::none};
  std::vector<ParameterGroup> groups = {group_of({at::randn({5, 7}), at::randn({7})})};
  std::vector<NaiveAdamW> naive;
  for (const auto& p : groups[0].parameters) {
    const auto w = to_doubles(p.master);
    naive.push_back({options, w, std::vector<double>(w.size()), std::vector<double>(w.size())});
  }
  const AdamW adamw(options);
  for (int t = 1; t <= 20; ++t) {
    const double lr = 1e-2 / t;
    for (size_t i = 0; i < naive.size(); ++i) {
      auto& parameter = groups[0].parameters[i];
      parameter.gradient.copy_(at::randn(parameter.gradient.sizes()));
      naive[i].step(to_doubles(parameter.gradient), lr, t, /*decay=*/i == 0);
    }
    adamw.step(groups, lr, t - 1);
  }
  for (size_t i = 0; i < naive.size(); ++i) {
    const auto ours = to_doubles(groups[0].parameters[i].master);
    for (size_t k = 0; k < ours.size(); ++k)  // each step rounds the weight to float32 once
      EXPECT_NEAR(ours[k], naive[i].w[k], 20 * 1.2e-7 * std::max(1.0, std::abs(naive[i].w[k])));
  }
}

TEST(AdamW, DecaysMatricesOnly) {
  std::vector<ParameterGroup> groups = {group_of({at::ones({2, 2}), at::ones({2})})};
  AdamW({.weight_decay = 0.5}).step(groups, 0.1, 0);
  EXPECT_TRUE(at::allclose(groups[0].parameters[0].master, at::full({2, 2}, 0.95)));
  EXPECT_TRUE(at::equal(groups[0].parameters[1].master, at::ones({2})));
}

TEST(AdamW, SetsGradientsToZero) {
  std::vector<ParameterGroup> groups = {group_of({at::ones({3, 2})})};
  groups[0].parameters[0].gradient.fill_(7);
  AdamW({}).step(groups, 0.1, 0);
  EXPECT_TRUE(at::equal(groups[0].parameters[0].gradient, at::zeros({3, 2})));
}

TEST(AdamW, ClipsBeforeTheUpdateAndReportsTheNormBefore) {
  const config::OptimizerOptions clipped{.clip = ClipMode::per_exit, .clip_norm = 1.0};
  std::vector<ParameterGroup> big = {group_of({at::ones({3, 2}), at::ones({2})})},
                              small = {group_of({at::ones({3, 2}), at::ones({2})})};
  for (size_t i = 0; i < 2; ++i) {
    big[0].parameters[i].gradient.fill_(5);                   // norm 5 * sqrt(8)
    small[0].parameters[i].gradient.fill_(1 / std::sqrt(8));  // the same direction, norm 1
  }
  const auto norms = AdamW(clipped).step(big, 0.1, 0);
  AdamW(clipped).step(small, 0.1, 0);
  EXPECT_THAT(norms, ElementsAre(DoubleNear(5 * std::sqrt(8), 1e-5)));
  EXPECT_TRUE(at::allclose(big[0].parameters[0].first_moment, small[0].parameters[0].first_moment));
  EXPECT_TRUE(at::allclose(big[0].parameters[0].first_moment, at::full({3, 2}, 0.1 / std::sqrt(8))));
}

TEST(ClipFactors, PerExitLeavesSmallGroupsAlone) {
  EXPECT_THAT(clip_factors(std::vector{0.5, 4.0}, ClipMode::per_exit, 2.0), ElementsAre(1.0, 0.5));
}

TEST(ClipFactors, GlobalUsesTheNormOverAllExits) {
  EXPECT_THAT(clip_factors(std::vector{3.0, 4.0}, ClipMode::global, 1.0), ElementsAre(0.2, 0.2));
  EXPECT_THAT(clip_factors(std::vector{3.0, 4.0}, ClipMode::global, 6.0), ElementsAre(1.0, 1.0));
}

TEST(ClipFactors, NoneNeverClips) {
  EXPECT_THAT(clip_factors(std::vector{3.0, 1e9}, ClipMode::none, 1.0), ElementsAre(1.0, 1.0));
}

TEST(AdamW, GradientThatIsNotFiniteStopsBeforeAnythingChanges) {
  for (const double bad : {std::numeric_limits<double>::infinity(), std::nan("")}) {
    std::vector<ParameterGroup> groups = {group_of({at::ones({2, 2})}, 3), group_of({at::ones({2, 2})}, 8)};
    groups[0].parameters[0].gradient.fill_(1);
    groups[1].parameters[0].gradient[0][1] = bad;
    EXPECT_THAT([&] { AdamW({}).step(groups, 0.1, 41); },
                testing::ThrowsMessage<base::UserError>(
                    testing::HasSubstr("exit at layer 8 is not finite at step 42")));
    EXPECT_TRUE(at::equal(groups[0].parameters[0].master, at::ones({2, 2})));
  }
}

}  // namespace ee::optim
