// Gradients of a whole model with exits: against one graph of autograd over whole logits, and against
// transformers (tests/golden/make_full_golden.py).
#include "full_step.h"

#include <ATen/Parallel.h>
#include <ATen/ops/nll_loss.h>
#include <gtest/gtest.h>

#include <map>

#include "golden/golden.h"
#include "support/tiny_model.h"

namespace ee::train {
using config::ExitKind, config::ExitPosition, config::ExitSpec, config::HeadKind, config::NormKind;

namespace {

using Gradients = std::map<std::string, at::Tensor>;

constexpr double kFinalWeight = 0.75;
const std::vector<ExitSpec> kSpecs = {
    {.layer = 1, .kind = ExitKind::embedding, .position = ExitPosition::before, .norm = NormKind::none},
    {.layer = 2, .kind = ExitKind::mlp, .weight = 0.5},
    {.layer = 3, .kind = ExitKind::norm, .norm = NormKind::shared},
    {.layer = 4, .kind = ExitKind::layer, .head = HeadKind::own, .temperature = 1.5},
    {.layer = 6, .kind = ExitKind::mlp, .head = HeadKind::own}};

struct Model {
  model::Backbone backbone;
  std::vector<exits::ExitHead> exits;

  // Copies, so that two of them can be trained.
  Model(const config::ModelConfig& config, const std::vector<ExitSpec>& specs)
      : backbone(test::tiny_backbone(config)), exits(test::tiny_exits(backbone, specs)) {
    at::set_num_threads(1);
  }

  template <typename Visit>
  void visit(const Visit& visit) {
    model::visit_backbone(backbone, [&](const auto& name, const auto&, at::Tensor& t) { visit(name, t); });
    for (auto& exit : exits)
      exits::visit_exit(backbone.config, exit,
                        [&](const auto& name, const auto&, at::Tensor& t) { visit(name, t); });
  }
};

at::Tensor random_tokens(int64_t vocabulary) {
  return at::arange(3 * 11).mul(7919).add(13).remainder(vocabulary).view({3, 11});
}

config::TuneOptions full_options(bool recompute) {
  config::TuneOptions options;
  options.exits.gradient_filter = 0.0;
  options.train = {
      .mode = config::TrainMode::all, .recompute = recompute, .final_weight = kFinalWeight, .hift = {}};
  return options;
}

// Everything in one graph.
Gradients by_autograd(Model& model, const at::Tensor& tokens) {
  const c10::AutoGradMode record(true);
  model.visit([](const std::string&, at::Tensor& tensor) { tensor.set_requires_grad(true); });
  const auto& backbone = model.backbone;
  const at::Tensor inputs = tokens.narrow(1, 0, tokens.size(1) - 1),
                   targets = tokens.narrow(1, 1, tokens.size(1) - 1);
  const auto loss_of = [&](const at::Tensor& logits) {
    return at::nll_loss(at::log_softmax(logits.flatten(0, 1), -1), targets.reshape({-1}));
  };
  at::Tensor total = at::zeros({});
  model::LayerTrace trace;
  trace.output = at::embedding(backbone.embedding, inputs);
  for (int64_t depth = 0; depth <= backbone.config.layers; ++depth) {
    if (depth > 0)
      trace = model::decoder_layer(backbone.config, backbone.layer(depth), trace.output, backbone.rope);
    for (const auto& exit : model.exits)
      if (exit.spec.depth() == depth) {
        const auto hidden = exit.forward(backbone, exits::exit_input(exit.spec, trace));
        total = total.add(loss_of(exit.logits(backbone, hidden)).mul(exit.spec.weight));
      }
  }
  const auto normed = model::rms_norm(trace.output, backbone.final_norm, backbone.config.rms_norm_eps);
  total.add(loss_of(at::linear(normed, backbone.head)).mul(kFinalWeight)).backward();
  Gradients gradients;
  model.visit([&](const std::string& name, at::Tensor& tensor) { gradients[name] = tensor.grad(); });
  return gradients;
}

optim::Optimizer make_optimizer(FullStep& full, Model& model, const config::TuneOptions& options) {
  std::vector<optim::ParameterGroup> groups;
  for (auto& exit : model.exits) {
    auto& group = groups.emplace_back(optim::ParameterGroup{.layer = exit.spec.layer, .parameters = {}});
    exits::visit_exit(model.backbone.config, exit, [&](const auto& name, const auto&, at::Tensor& tensor) {
      group.parameters.push_back(optim::Parameter::make(name, tensor));
    });
  }
  for (auto& trained : full.groups()) {
    auto& group = groups.emplace_back(optim::ParameterGroup{.layer = trained.unit, .parameters = {}});
    for (auto& tensor : trained.tensors)
      group.parameters.push_back(optim::Parameter::make(tensor.name, tensor.member));
  }
  return {options.optimizer, std::move(groups)};
}

struct Result {
  Gradients gradients;
  std::vector<double> losses;
};

data::Batch batch_of(const at::Tensor& tokens) {  // [count, length + 1]
  const int64_t length = tokens.size(1) - 1;
  return {.inputs = tokens.narrow(1, 0, length), .targets = tokens.narrow(1, 1, length)};
}

// `micro_batches`: the tokens' rows, so many at a time.
Result by_full_step(Model& model, const at::Tensor& tokens, const config::TuneOptions& options,
                    int64_t step = 0, int64_t micro_batches = 1) {
  const Stage stage{.last_layer = model.backbone.config.layers,
                    .loaded_layers = model.backbone.config.layers,
                    .exit_count = model.exits.size()};
  FullStep full(stage, model.backbone, at::kFloat, options);
  auto optimizer = make_optimizer(full, model, options);
  Result result{.gradients = {}, .losses = std::vector<double>(model.exits.size() + 1, 0.0)};
  const FullView view{stage, model.exits, optimizer, nullptr, nullptr};
  full.begin(view, step);
  const auto parts = tokens.chunk(micro_batches);
  const int64_t learned = batch_of(tokens).targets.ne(kernels::kIgnoreToken).sum().item<int64_t>();
  full.accumulate(
      view, micro_batches, [&](int64_t i) { return batch_of(parts[static_cast<size_t>(i)]); }, 1.0, learned,
      result.losses);
  for (double& loss : result.losses) loss /= static_cast<double>(learned);
  for (const auto& group : optimizer.groups())
    for (const auto& parameter : group.parameters)
      if (group.active) result.gradients[parameter.name] = parameter.gradient.clone();
  return result;
}

void expect_near(const Gradients& got, const Gradients& expected, double tolerance) {
  for (const auto& [name, gradient] : got) {
    ASSERT_TRUE(expected.contains(name)) << name;
    const double largest = expected.at(name).abs().max().item<double>();
    EXPECT_GT(largest, 0) << name << ": nothing was tested";
    EXPECT_LE(test::max_difference(gradient, expected.at(name)), tolerance * largest) << name;
  }
}

}  // namespace

class FullStepTest : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Recompute, FullStepTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "on" : "off"; });

TEST_P(FullStepTest, GradientsEqualOneGraphOverAll) {
  for (const bool tied : {false, true}) {
    auto config = test::tiny_config();
    config.tie_embeddings = tied;
    config.qkv_bias = config.output_bias = config.mlp_bias = true;
    Model reference(config, kSpecs), model(config, kSpecs);
    const auto tokens = random_tokens(config.vocab_size);
    const auto expected = by_autograd(reference, tokens);
    const auto result = by_full_step(model, tokens, full_options(GetParam()));
    EXPECT_EQ(result.gradients.size(), expected.size());
    for (const double loss : result.losses) EXPECT_GT(loss, 0);
    expect_near(result.gradients, expected, 2e-5);
  }
}

TEST_P(FullStepTest, MicroBatchesAddUp) {
  const auto config = test::tiny_config();
  Model whole(config, kSpecs), parts(config, kSpecs);
  const auto tokens = random_tokens(config.vocab_size);
  const auto options = full_options(GetParam());
  const auto a = by_full_step(whole, tokens, options), b = by_full_step(parts, tokens, options, 0, 3);
  expect_near(b.gradients, a.gradients, 2e-5);
  for (size_t i = 0; i < a.losses.size(); ++i) EXPECT_NEAR(b.losses[i], a.losses[i], 1e-5);
}

// Each turn of HiFT computes the gradients of its group, and no others.
TEST_P(FullStepTest, TurnsGiveThePartsOfTheWholeGradient) {
  for (const bool tied : {false, true}) {
    auto config = test::tiny_config();
    config.tie_embeddings = tied;
    const auto tokens = random_tokens(config.vocab_size);
    auto options = full_options(GetParam());
    Model whole(config, kSpecs);
    const auto expected = by_full_step(whole, tokens, options);
    for (const int64_t groups : {1, 3, 8}) {
      options.train.hift.groups = groups;
      Gradients together;
      for (int64_t step = 0; step < groups; ++step) {
        Model model(config, kSpecs);
        const auto turn = by_full_step(model, tokens, options, step);
        for (size_t i = 0; i < turn.losses.size(); ++i) EXPECT_NEAR(turn.losses[i], expected.losses[i], 1e-5);
        for (const auto& [name, gradient] : turn.gradients) {
          EXPECT_FALSE(together.contains(name)) << name << " has two turns";
          together[name] = gradient;
        }
      }
      EXPECT_EQ(together.size(), expected.gradients.size());
      expect_near(together, expected.gradients, 2e-5);
    }
  }
}

// Loss and gradients by transformers and PyTorch's autograd.
TEST_P(FullStepTest, EqualsTransformers) {
  for (const char* name : {"gqa_head_dim", "tied"}) {
    const test::Golden golden(name);
    const auto values = checkpoint::TensorFiles::open_file(golden.folder / "full.safetensors");
    Model model(golden.backbone.config, {});
    model.backbone = golden.backbone;
    for (const auto& exit : {"1 mlp after shared own 1", "2 norm after shared shared 1.5"})
      model.exits.push_back(golden.exit(exit));
    model.exits[0].spec.weight = 0.5;
    const auto result = by_full_step(model, values.alias("tokens"), full_options(GetParam()));
    Gradients expected;
    for (const auto& [key, gradient] : result.gradients) expected[key] = values.alias(key);
    expect_near(result.gradients, expected, 1e-4);
    for (size_t i = 0; i < result.losses.size(); ++i)
      EXPECT_NEAR(result.losses[i], values.alias("losses")[static_cast<int64_t>(i)].item<double>(), 1e-5);
    EXPECT_EQ(values.names().size(), result.gradients.size() + 2);
  }
}

}  // namespace ee::train
