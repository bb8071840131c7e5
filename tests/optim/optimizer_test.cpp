#include "ee/optim/optimizer.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "clip.h"

namespace ee::optim {
using config::ClipMode;
using testing::DoubleNear;
using testing::ElementsAre;

namespace {

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

// One whole parameter at a time: what flat buffers may not change a bit of.
struct PerParameter {
  config::OptimizerOptions o;
  std::vector<at::Tensor> w, m, v;

  void step(const std::vector<at::Tensor>& gradients, double lr, int64_t step) {
    double squares = 0.0;
    for (const auto& g : gradients) squares += std::pow(at::linalg_vector_norm(g).item<double>(), 2);
    const double norm = std::sqrt(squares);
    std::optional<at::Tensor> divisor;
    if (norm > o.clip_norm) divisor = at::full({}, 1.0 / (o.clip_norm / norm), at::kFloat);
    for (size_t i = 0; i < w.size(); ++i)
      at::_fused_adamw_({w[i]}, {gradients[i].clone()}, {m[i]}, {v[i]}, {},
                        {at::full({}, static_cast<double>(step + 1), at::kFloat)}, lr, o.beta1, o.beta2,
                        w[i].dim() > 1 ? o.weight_decay : 0.0, o.eps, false, false, divisor);
  }
};

std::vector<double> to_doubles(const at::Tensor& tensor) {
  const auto flat = tensor.detach().to(at::kDouble).contiguous().reshape(-1);
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

ParameterGroup group_of(std::vector<at::Tensor> masters, int64_t layer = 1) {
  ParameterGroup group{.layer = layer, .parameters = {}};
  for (auto& master : masters)
    group.parameters.push_back(
        Parameter::make(fmt::format("p{}", group.parameters.size()), std::move(master)));
  return group;
}

std::vector<double> step(Optimizer& optimizer, double lr, int64_t step) {
  for (size_t i = 0; i < optimizer.groups().size(); ++i) optimizer.reduce(i);
  return optimizer.step(lr, step);
}

const Parameter& parameter(const Optimizer& optimizer, size_t i) {
  return optimizer.groups()[0].parameters[i];
}

}  // namespace

TEST(Optimizer, EqualsTheNaiveAlgorithm) {
  const config::OptimizerOptions options{.weight_decay = 0.1, .clip = ClipMode::none};
  Optimizer optimizer(options, {group_of({at::randn({5, 7}), at::randn({7})})});
  std::vector<NaiveAdamW> naive;
  for (const auto& p : optimizer.groups()[0].parameters) {
    const auto w = to_doubles(p.master);
    naive.push_back({options, w, std::vector<double>(w.size()), std::vector<double>(w.size())});
  }
  for (int t = 1; t <= 20; ++t) {
    const double lr = 1e-2 / t;
    for (size_t i = 0; i < naive.size(); ++i) {
      const at::Tensor gradient = parameter(optimizer, i).gradient;
      gradient.copy_(at::randn(gradient.sizes()));
      naive[i].step(to_doubles(gradient), lr, t, /*decay=*/i == 0);
    }
    step(optimizer, lr, t - 1);
  }
  for (size_t i = 0; i < naive.size(); ++i) {
    const auto ours = to_doubles(parameter(optimizer, i).master);
    for (size_t k = 0; k < ours.size(); ++k)  // each step rounds the weight to float32 once
      EXPECT_NEAR(ours[k], naive[i].w[k], 20 * 1.2e-7 * std::max(1.0, std::abs(naive[i].w[k])));
  }
}

TEST(Optimizer, FlatBuffersHaveTheBitsOfSingleParameters) {
  const config::OptimizerOptions options{.weight_decay = 0.1};
  const std::vector<at::Tensor> masters = {at::randn({50, 7}), at::randn({7}), at::randn({300, 401})};
  PerParameter reference{options, {}, {}, {}};
  for (const auto& master : masters) {
    reference.w.push_back(master.clone());
    reference.m.push_back(at::zeros_like(master)), reference.v.push_back(at::zeros_like(master));
  }
  Optimizer optimizer(options, {group_of(masters)});
  for (int64_t t = 0; t < 5; ++t) {
    std::vector<at::Tensor> gradients;
    for (size_t i = 0; i < masters.size(); ++i) {
      gradients.push_back(at::randn(masters[i].sizes()));
      parameter(optimizer, i).gradient.copy_(gradients[i]);
    }
    step(optimizer, 1e-2, t);
    reference.step(gradients, 1e-2, t);
  }
  for (size_t i = 0; i < masters.size(); ++i)
    EXPECT_TRUE(at::equal(parameter(optimizer, i).master, reference.w[i])) << i;
}

TEST(Optimizer, MastersKeepTheirIdentityAndLieInOneBuffer) {
  const at::Tensor a = at::randn({3, 5}), b = at::randn({4});
  const at::Tensor a_before = a.clone();
  Optimizer optimizer({}, {group_of({a, b})});
  EXPECT_TRUE(at::equal(a, a_before));
  EXPECT_TRUE(a.requires_grad() && a.is_leaf());
  EXPECT_TRUE(a.is_same(parameter(optimizer, 0).master));
  EXPECT_TRUE(a.grad().is_same(parameter(optimizer, 0).gradient));
  EXPECT_EQ(b.data_ptr<float>() - a.data_ptr<float>(), 16) << "15 elements and one of padding";
  EXPECT_TRUE(a.storage().is_alias_of(b.storage()));
  a.mul(2.0).sum().backward();  // autograd adds to the buffer
  EXPECT_TRUE(at::equal(parameter(optimizer, 0).gradient, at::full({3, 5}, 2.0)));
  step(optimizer, 0.5, 0);
  EXPECT_FALSE(at::equal(a, a_before)) << "the other handle sees the update";
}

TEST(Optimizer, DecaysMatricesOnly) {
  Optimizer optimizer({.weight_decay = 0.5}, {group_of({at::ones({2, 2}), at::ones({2})})});
  step(optimizer, 0.1, 0);
  EXPECT_TRUE(at::allclose(parameter(optimizer, 0).master, at::full({2, 2}, 0.95)));
  EXPECT_TRUE(at::equal(parameter(optimizer, 1).master, at::ones({2})));
}

TEST(Optimizer, SetsGradientsToZero) {
  Optimizer optimizer({}, {group_of({at::ones({3, 2})})});
  parameter(optimizer, 0).gradient.fill_(7);
  step(optimizer, 0.1, 0);
  EXPECT_TRUE(at::equal(parameter(optimizer, 0).gradient, at::zeros({3, 2})));
}

TEST(Optimizer, ClipsBeforeTheUpdateAndReportsTheNormBefore) {
  const config::OptimizerOptions clipped{.clip = ClipMode::per_exit, .clip_norm = 1.0};
  Optimizer big(clipped, {group_of({at::ones({3, 2}), at::ones({2})})}),
      small(clipped, {group_of({at::ones({3, 2}), at::ones({2})})});
  for (size_t i = 0; i < 2; ++i) {
    parameter(big, i).gradient.fill_(5);                   // norm 5 * sqrt(8)
    parameter(small, i).gradient.fill_(1 / std::sqrt(8));  // the same direction, norm 1
  }
  EXPECT_THAT(step(big, 0.1, 0), ElementsAre(DoubleNear(5 * std::sqrt(8), 1e-5)));
  step(small, 0.1, 0);
  const auto a = big.moments(0).at("p0").first, b = small.moments(0).at("p0").first;
  EXPECT_TRUE(at::allclose(a, b));
  EXPECT_TRUE(at::allclose(a, at::full({3, 2}, 0.1 / std::sqrt(8))));
}

TEST(Optimizer, NormCountsAShareOfWhatOtherTensorRanksHoldToo) {
  auto group = group_of({at::ones({2, 2}), at::ones({8})});
  group.parameters[1].tensor_copies = 2;
  Optimizer optimizer({}, {group});
  parameter(optimizer, 0).gradient.fill_(3);
  parameter(optimizer, 1).gradient.fill_(2);
  EXPECT_THAT(step(optimizer, 0.1, 0), ElementsAre(DoubleNear(std::sqrt(4 * 9 + 8 * 4 / 2), 1e-6)));
}

TEST(Optimizer, GradientThatIsNotFiniteStopsBeforeAnythingChanges) {
  for (const double bad : {std::numeric_limits<double>::infinity(), std::nan("")}) {
    Optimizer optimizer({}, {group_of({at::ones({2, 2})}, 3), group_of({at::ones({2, 2})}, 8)});
    parameter(optimizer, 0).gradient.fill_(1);
    optimizer.groups()[1].parameters[0].gradient[0][1] = bad;
    EXPECT_THAT([&] { step(optimizer, 0.1, 41); }, testing::ThrowsMessage<base::UserError>(testing::HasSubstr(
                                                       "exit at layer 8 is not finite at step 42")));
    EXPECT_TRUE(at::equal(parameter(optimizer, 0).master, at::ones({2, 2})));
  }
}

TEST(Optimizer, EveryGroupIsReducedOnceAStep) {
  Optimizer optimizer({}, {group_of({at::ones({2})}), group_of({at::ones({2})}, 7)});
  optimizer.reduce(0);
  EXPECT_THAT([&] { optimizer.reduce(0); },
              testing::ThrowsMessage<base::InternalError>(testing::HasSubstr("layer 1 reduced twice")));
  EXPECT_THAT([&] { optimizer.step(0.1, 0); },
              testing::ThrowsMessage<base::InternalError>(testing::HasSubstr("layer 7 was not reduced")));
}

TEST(Optimizer, MomentsThatWereSetContinueARun) {
  const auto make = [] { return group_of({at::full({5, 7}, 0.5), at::full({3}, 0.5)}); };
  Optimizer whole({}, {make()}), second({}, {make()});
  const auto set_gradients = [](Optimizer& optimizer, double value) {
    for (size_t i = 0; i < 2; ++i) parameter(optimizer, i).gradient.fill_(value);
  };
  set_gradients(whole, 0.1), step(whole, 0.1, 0);
  for (const auto& [name, moments] : whole.moments(0)) second.set_moments(0, name, moments);
  for (size_t i = 0; i < 2; ++i)
    parameter(second, i).master.detach().copy_(parameter(whole, i).master.detach());
  set_gradients(whole, -0.3), step(whole, 0.1, 1);
  set_gradients(second, -0.3), step(second, 0.1, 1);
  for (size_t i = 0; i < 2; ++i)
    EXPECT_TRUE(at::equal(parameter(whole, i).master, parameter(second, i).master)) << i;
}

TEST(ClipFactors, PerExitLeavesSmallGroupsAlone) {
  EXPECT_THAT(clip_factors(std::vector{0.5, 4.0}, 9.0, ClipMode::per_exit, 2.0), ElementsAre(1.0, 0.5));
}

TEST(ClipFactors, GlobalUsesTheNormOverAllExits) {
  const std::vector norms{3.0, 4.0};
  EXPECT_EQ(combine_norms(norms), 5.0);
  EXPECT_THAT(clip_factors(norms, 5.0, ClipMode::global, 1.0), ElementsAre(0.2, 0.2));
  EXPECT_THAT(clip_factors(norms, 5.0, ClipMode::global, 6.0), ElementsAre(1.0, 1.0));
}

TEST(ClipFactors, NoneNeverClips) {
  EXPECT_THAT(clip_factors(std::vector{3.0, 1e9}, 1e9, ClipMode::none, 1.0), ElementsAre(1.0, 1.0));
}

}  // namespace ee::optim
