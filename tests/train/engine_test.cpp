#include "ee/train/engine.h"

#include <ATen/Parallel.h>
#include <ATen/ops/nll_loss.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/tiny_model.h"
#include "train/sample_text.h"

namespace ee::train {
using config::ExitKind, config::ExitSpec, config::HeadKind, config::NormKind;

namespace {

const std::vector<ExitSpec> kSpecs = {
    {.layer = 2, .kind = ExitKind::mlp},
    {.layer = 3, .kind = ExitKind::norm, .head = HeadKind::own, .weight = 0.5},
    {.layer = 4, .kind = ExitKind::layer, .temperature = 1.5},
    {.layer = 5, .kind = ExitKind::embedding, .head = HeadKind::own, .norm = NormKind::none},
};

config::TuneOptions tune_options(int64_t micro_batch, int64_t global_batch) {
  config::TuneOptions options;
  options.batch = {.sequence_length = 16, .micro_batch = micro_batch, .global_batch = global_batch};
  options.exits.gradient_filter = 0.0;
  options.optimizer = {.lr = 1e-2, .weight_decay = 0.0};
  return options;
}

Engine make_engine(const config::TuneOptions& options, const std::vector<ExitSpec>& specs = kSpecs,
                   int64_t steps = 100) {
  at::set_num_threads(1);  // tensors this small only wait for each other
  auto backbone = test::tiny_backbone(test::tiny_config());
  auto exits = test::tiny_exits(backbone, specs);
  return {std::move(backbone), std::move(exits), options, steps};
}

std::vector<at::Tensor> masters(Engine& engine) {
  std::vector<at::Tensor> tensors;
  for (const auto& group : engine.optimizer().groups())
    for (const auto& parameter : group.parameters) tensors.push_back(parameter.master.detach().clone());
  return tensors;
}

void expect_same_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << i;
}

}  // namespace

TEST(Engine, AccumulationEqualsOneBigBatch) {
  const auto source = sample_source(16);
  auto big = make_engine(tune_options(4, 4)), small = make_engine(tune_options(1, 4));
  for (int64_t step = 0; step < 2; ++step) {
    const auto a = big.step(source, step), b = small.step(source, step);
    for (size_t i = 0; i < kSpecs.size(); ++i) {
      EXPECT_NEAR(a.losses[i], b.losses[i], 1e-4);
      EXPECT_NEAR(a.gradient_norms[i], b.gradient_norms[i], 1e-3 * a.gradient_norms[i]);
    }
  }
  const auto a = masters(big), b = masters(small);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::allclose(a[i], b[i], 1e-3, 1e-4)) << i;
}

// The gradient of an mlp exit by autograd over whole logits, against the first moment after one unclipped
// step.
TEST(Engine, GradientEqualsAutogradOverWholeLogits) {
  auto options = tune_options(2, 2);
  options.optimizer.clip = config::ClipMode::none;
  const auto source = sample_source(16);
  const auto specs = std::vector{kSpecs[0]};
  auto backbone = test::tiny_backbone(test::tiny_config());
  auto exit = test::tiny_exit(backbone, specs[0]);
  std::vector<at::Tensor> weights;
  exits::visit_exit(backbone.config, exit, [&](const auto&, const auto&, at::Tensor& member) {
    member = member.clone().set_requires_grad(true);
    weights.push_back(member);
  });
  const auto batch = source.at(0, 2);
  exits::ExitInput input;
  model::run_layers(backbone, batch.inputs, 2, [&](int64_t depth, const model::LayerTrace& trace) {
    if (depth == 2) input = exits::exit_input(exit.spec, trace);
  });
  const auto logits = at::linear(exit.forward(backbone, input), exit.head).flatten(0, 1);
  const auto loss = at::nll_loss(at::log_softmax(logits, -1), batch.targets.reshape({-1}));
  loss.backward();

  auto engine = make_engine(options, specs);
  const auto result = engine.step(source, 0);
  EXPECT_NEAR(result.losses[0], loss.item<double>(), 1e-5);
  const auto& parameters = engine.optimizer().groups()[0].parameters;
  const auto moments = engine.optimizer().moments(0);
  ASSERT_EQ(parameters.size(), weights.size());
  for (size_t i = 0; i < weights.size(); ++i)
    EXPECT_TRUE(at::allclose(moments.at(parameters[i].name).first.div(1 - options.optimizer.beta1),
                             weights[i].grad(), 1e-4, 1e-6))
        << parameters[i].name;
}

TEST(Engine, LossOfEveryExitDecreases) {
  const auto source = sample_source(16);
  auto options = tune_options(4, 4);
  options.exits.gradient_filter = 1.0 / 16384;
  auto engine = make_engine(options);
  const auto first = engine.step(source, 0).losses;
  auto last = first;
  for (int64_t step = 1; step < 60; ++step) last = engine.step(source, step).losses;
  for (size_t i = 0; i < first.size(); ++i) EXPECT_LT(last[i], first[i] - 1.0) << kSpecs[i].layer;
}

TEST(Engine, Bf16BackboneTrainsFloat32Masters) {
  const auto source = sample_source(16);
  auto f32 = make_engine(tune_options(4, 4));
  auto backbone = test::tiny_backbone(test::tiny_config(), 1, at::kBFloat16);
  auto exits = test::tiny_exits(backbone, kSpecs);
  for (auto& exit : exits) {
    exits::visit_exit(backbone.config, exit,
                      [](const auto&, const auto&, at::Tensor& member) { member = member.to(at::kFloat); });
  }
  Engine bf16(std::move(backbone), std::move(exits), tune_options(4, 4), 100);
  const auto a = bf16.step(source, 0), b = f32.step(source, 0);
  for (size_t i = 0; i < kSpecs.size(); ++i) {
    EXPECT_NEAR(a.losses[i], b.losses[i], 0.05);
    EXPECT_NEAR(a.gradient_norms[i], b.gradient_norms[i], 0.1 * b.gradient_norms[i]);
  }
  auto last = a;
  for (int64_t step = 1; step < 60; ++step) last = bf16.step(source, step);
  for (size_t i = 0; i < kSpecs.size(); ++i) EXPECT_LT(last.losses[i], a.losses[i] - 1.0) << kSpecs[i].layer;
}

TEST(Engine, BackboneIsNotTouched) {
  const auto untouched = test::tiny_backbone(test::tiny_config());
  auto engine = make_engine(tune_options(2, 2));
  const auto source = sample_source(16);
  for (int64_t step = 0; step < 3; ++step) engine.step(source, step);
  std::vector<at::Tensor> before, after;
  const auto collect_into = [](std::vector<at::Tensor>& tensors) {
    return [&tensors](const auto&, const auto&, at::Tensor& member) { tensors.push_back(member); };
  };
  auto copy = untouched, tuned = engine.backbone();
  model::visit_backbone(copy, collect_into(before));
  model::visit_backbone(tuned, collect_into(after));
  expect_same_bits(before, after);
}

TEST(Engine, ExitsAreIndependentProblems) {
  const auto source = sample_source(16);
  auto together = make_engine(tune_options(2, 2));
  for (int64_t step = 0; step < 3; ++step) together.step(source, step);
  std::vector<at::Tensor> alone;
  for (const auto& spec : kSpecs) {
    auto engine = make_engine(tune_options(2, 2), {spec});
    for (int64_t step = 0; step < 3; ++step) engine.step(source, step);
    for (auto& tensor : masters(engine)) alone.push_back(tensor);
  }
  expect_same_bits(masters(together), alone);
}

TEST(Engine, WeightScheduleScalesGradients) {
  const auto source = sample_source(16);
  auto options = tune_options(2, 2);
  auto plain = make_engine(options);
  options.exits.weight_schedule = {
      .shape = config::WeightShape::linear, .warmup_fraction = 0.5, .initial = 0.25};
  auto scheduled = make_engine(options);
  const auto a = plain.step(source, 0), b = scheduled.step(source, 0);
  for (size_t i = 0; i < kSpecs.size(); ++i) {
    EXPECT_EQ(a.losses[i], b.losses[i]) << "losses are reported before weights";
    EXPECT_NEAR(b.gradient_norms[i], 0.25 * a.gradient_norms[i], 1e-5 * a.gradient_norms[i]);
  }
}

}  // namespace ee::train
