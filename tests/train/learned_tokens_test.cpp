// A step's losses and gradients are sums over the learned tokens of the global batch, divided once by their
// number, however unequal the prompts are and however the batch is cut.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "ee/train/evaluation.h"
#include "ee/train/job.h"
#include "support/tiny_model.h"
#include "train/sample_text.h"

namespace ee::train {
using config::ExitKind, config::ExitSpec, config::HeadKind;

namespace {

constexpr int64_t kLength = 32, kLearned = 33;

// Two sequences: one learned token in the first, all 32 in the second.
data::BatchSource unequal_source() {
  return prompt_source(kLength, {{random_tokens(33, 1), 32}, {random_tokens(31, 2), 0}});
}

struct Case {
  const char* name;
  config::LossOptions loss = {};
  config::TokenWeights weights = config::TokenWeights::uniform;
  config::TrainMode mode = config::TrainMode::exits;

  bool whole_model() const { return mode == config::TrainMode::all; }
};

const std::vector<ExitSpec> kSpecs = {
    {.layer = 2, .kind = ExitKind::mlp, .weight = 0.5},
    {.layer = 3, .kind = ExitKind::norm, .head = HeadKind::own, .temperature = 1.5},
    {.layer = 5, .kind = ExitKind::layer}};

config::TuneOptions tune_options(const Case& of, int64_t micro_batch, int64_t global_batch = 2) {
  config::TuneOptions options;
  options.batch = {.sequence_length = kLength, .micro_batch = micro_batch, .global_batch = global_batch};
  options.exits.gradient_filter = 0.0;
  options.exits.loss = of.loss;
  options.exits.token_weights = of.weights;
  options.train.mode = of.mode;
  options.train.final_weight = 0.75;
  options.optimizer = {.lr = 1e-2, .weight_decay = 0.1, .clip = config::ClipMode::none};
  options.schedule = {.decay = config::DecayShape::constant};
  return options;
}

Engine make_engine(const config::TuneOptions& options) {
  at::set_num_threads(1);
  auto backbone = test::tiny_backbone(test::tiny_config());
  auto exits = test::tiny_exits(backbone, kSpecs);
  return {std::move(backbone), std::move(exits), options, 100};
}

using Tensors = std::map<std::string, at::Tensor>;

Tensors masters(Engine& engine) {
  Tensors tensors;
  for (const auto& group : engine.optimizer().groups())
    for (const auto& parameter : group.parameters)
      tensors[parameter.name] = parameter.master.detach().clone();
  return tensors;
}

// Of an engine that has made its first step, which nothing clipped.
Tensors gradients(Engine& engine, const config::TuneOptions& options) {
  Tensors tensors;
  for (size_t i = 0; i < engine.optimizer().groups().size(); ++i)
    for (const auto& [name, moments] : engine.optimizer().moments(i))
      tensors[name] = moments.first.div(1 - options.optimizer.beta1);
  return tensors;
}

void expect_same_bits(const Tensors& a, const Tensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
}

// Whole logits of the whole batch in one graph.
class Naive {
 public:
  explicit Naive(const Case& of)
      : case_(of),
        backbone_(test::tiny_backbone(test::tiny_config())),
        exits_(test::tiny_exits(backbone_, kSpecs)) {
    const auto leaf = [&](const std::string& name, const auto&, at::Tensor& member) {
      leaves_[name] = member.set_requires_grad(true);
    };
    for (auto& exit : exits_) exits::visit_exit(backbone_.config, exit, leaf);
    if (of.whole_model()) model::visit_backbone(backbone_, leaf);
  }

  // Losses before weights: of the exits and, of the whole model, of the final layer.
  std::vector<double> operator()(const data::Batch& batch) {
    const c10::AutoGradMode record(true);
    targets_ = batch.targets.flatten();
    counted_ = targets_.ne(data::kNoTarget).to(at::kFloat);
    std::vector<model::LayerTrace> traces(1);
    traces[0].output = at::embedding(backbone_.embedding, batch.inputs);
    for (int64_t depth = 1; depth <= backbone_.config.layers; ++depth)
      traces.push_back(model::decoder_layer(backbone_.config, backbone_.layer(depth), traces.back().output,
                                            backbone_.rope));
    final_ = model::rms_norm(traces.back().output, backbone_.final_norm, backbone_.config.rms_norm_eps)
                 .flatten(0, 1);
    for (const auto& exit : exits_) {
      const auto& trace = traces[static_cast<size_t>(exit.spec.depth())];
      add(exit.spec, exit.forward(backbone_, exits::exit_input(exit.spec, trace)).flatten(0, 1), exit.head);
    }
    if (case_.whole_model()) add_final();
    total_.backward();
    return losses_;
  }

  Tensors gradients() const {
    Tensors gradients;
    for (const auto& [name, leaf] : leaves_) gradients[name] = leaf.grad();
    return gradients;
  }

 private:
  at::Tensor mean(const at::Tensor& terms) const { return terms.mul(counted_).sum().div(counted_.sum()); }
  at::Tensor cross_entropy(const at::Tensor& log_p) const {
    return log_p.gather(1, targets_.clamp_min(0).unsqueeze(1)).squeeze(1).neg();
  }

  void add(const ExitSpec& spec, const at::Tensor& rows, const at::Tensor& head) {
    const config::LossOptions& loss = case_.loss;
    const double heat = loss.kl_temperature;
    const at::Tensor z = at::linear(rows, head), log_p = z.div(spec.temperature).log_softmax(-1);
    const at::Tensor taught = at::linear(final_, backbone_.head).detach().div(heat).log_softmax(-1);
    const at::Tensor kl = taught.exp().mul(taught.sub(z.div(heat).log_softmax(-1))).sum(-1);
    at::Tensor terms = cross_entropy(log_p).mul(loss.cross_entropy);
    if (loss.kl > 0) terms = terms.add(kl.mul(loss.kl * heat * heat));
    if (loss.hidden > 0) terms = terms.add(rows.sub(final_.detach()).square().mean(-1).mul(loss.hidden));
    if (case_.weights == config::TokenWeights::confidence)
      terms = terms.mul(std::get<0>(log_p.exp().max(-1)).detach());
    total_ = total_.add(mean(terms).mul(spec.weight));
    losses_.push_back(mean(cross_entropy(log_p)).item<double>());
  }

  void add_final() {
    const at::Tensor loss = mean(cross_entropy(at::linear(final_, backbone_.head).log_softmax(-1)));
    total_ = total_.add(loss.mul(0.75));
    losses_.push_back(loss.item<double>());
  }

  const Case& case_;
  model::Backbone backbone_;
  std::vector<exits::ExitHead> exits_;
  Tensors leaves_;
  at::Tensor targets_, counted_, final_, total_ = at::zeros({});
  std::vector<double> losses_;
};

}  // namespace

class UnequalPrompts : public testing::TestWithParam<Case> {};

TEST_P(UnequalPrompts, StepEqualsOneMeanOverAllLearnedTokens) {
  const auto source = unequal_source();
  Naive naive(GetParam());
  const auto losses = naive(source.at(0, 2));
  const auto expected = naive.gradients();
  Tensors first;
  for (const int64_t micro_batch : {2, 1}) {
    SCOPED_TRACE(micro_batch);
    const auto options = tune_options(GetParam(), micro_batch);
    auto engine = make_engine(options);
    const auto result = engine.step(source, 0);
    EXPECT_EQ(result.learned_tokens, kLearned);
    ASSERT_EQ(result.losses.size(), losses.size());
    for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(result.losses[i], losses[i], 1e-5 * losses[i]);
    const auto got = gradients(engine, options);
    ASSERT_EQ(got.size(), expected.size());
    for (const auto& [name, gradient] : got)
      EXPECT_LT(gradient.sub(expected.at(name)).norm().item<double>(),
                1e-4 * expected.at(name).norm().item<double>() + 1e-6)
          << name;
    const auto weights = masters(engine);
    if (first.empty()) first = weights;
    for (const auto& [name, weight] : weights)
      EXPECT_TRUE(at::allclose(weight, first.at(name), 1e-3, 1e-4)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Losses, UnequalPrompts,
    testing::Values(
        Case{"CrossEntropy"}, Case{"Kl", {.cross_entropy = 0, .kl = 1, .kl_temperature = 2}},
        Case{"Hidden", {.cross_entropy = 0, .hidden = 1}},
        Case{"MixtureByConfidence",
             {.cross_entropy = 0.5, .kl = 0.5, .hidden = 2},
             config::TokenWeights::confidence},
        Case{"WholeModel", {}, config::TokenWeights::uniform, config::TrainMode::all},
        Case{"WholeModelByConfidence", {}, config::TokenWeights::confidence, config::TrainMode::all}),
    [](const auto& info) { return info.param.name; });

TEST(UnequalPrompts, HeldOutLossIsTheStepsLoss) {
  const auto source = unequal_source();
  auto engine = make_engine(tune_options({"CrossEntropy"}, 1));
  std::vector<Evaluation> evaluations;
  for (const int64_t micro_batch : {2, 1})
    evaluations.push_back(*evaluate(engine, kSpecs, source, 2, micro_batch, [] { return false; }));
  const auto step = engine.step(source, 0);
  for (const auto& evaluation : evaluations) {
    EXPECT_EQ(evaluation.tokens, kLearned);
    for (size_t i = 0; i < kSpecs.size(); ++i)
      EXPECT_NEAR(evaluation.exits[i].loss, step.losses[i], 1e-5 * step.losses[i]);
  }
}

// Sixteen tokens a sequence: two of prompts only, then four with something to learn.
class EmptySteps : public testing::Test {
 protected:
  static constexpr int64_t kShort = 16;

  // Without the sequences that are prompts only, or with them in front.
  static data::BatchSource source(bool with_prompts) {
    auto tokens = random_tokens(40, 1);
    if (!with_prompts) tokens.erase(tokens.begin(), tokens.begin() + 2 * kShort);
    const auto count = std::ssize(tokens);
    return prompt_source(kShort, {{std::move(tokens), count}, {random_tokens(60, 2), 0}});
  }

  static config::TuneOptions options(int64_t global_batch, config::TrainMode mode, int64_t groups = 0) {
    auto options = tune_options({"", {}, config::TokenWeights::uniform, mode}, 1, global_batch);
    options.batch.sequence_length = kShort;
    options.train.hift.groups = groups;
    return options;
  }

  static Tensors moments(Engine& engine) {
    Tensors tensors;
    for (size_t i = 0; i < engine.optimizer().groups().size(); ++i)
      for (const auto& [name, of] : engine.optimizer().moments(i))
        tensors[name + " 1"] = of.first.clone(), tensors[name + " 2"] = of.second.clone();
    return tensors;
  }

  // Weights after `steps` steps that learned something.
  static Tensors trained(const config::TuneOptions& options, bool with_prompts, int64_t begin,
                         int64_t steps) {
    const auto text = source(with_prompts);
    auto engine = make_engine(options);
    for (int64_t step = begin; step < begin + steps; ++step) engine.step(text, step);
    return masters(engine);
  }
};

TEST_F(EmptySteps, ChangeNeitherWeightsNorMoments) {
  for (const auto mode : {config::TrainMode::exits, config::TrainMode::all}) {
    const auto text = source(/*with_prompts=*/true);
    ASSERT_EQ(text.learned_tokens(0, 2), 0);
    auto engine = make_engine(options(2, mode));
    const auto weights = masters(engine), state = moments(engine);
    const auto result = engine.step(text, 0);
    EXPECT_EQ(result.learned_tokens, 0);
    EXPECT_EQ(result.empty_steps, 1);
    EXPECT_GT(result.learning_rate, 0);
    EXPECT_THAT(result.losses, testing::Each(0.0));
    expect_same_bits(masters(engine), weights);
    expect_same_bits(moments(engine), state);
    const auto next = engine.step(text, 1);
    EXPECT_GT(next.learned_tokens, 0);
    EXPECT_EQ(next.empty_steps, 1);
  }
}

// Adam corrects its bias by the updates that were made, also when a run goes on behind an empty step.
TEST_F(EmptySteps, LeaveNoTraceInLaterOnes) {
  for (const auto mode : {config::TrainMode::exits, config::TrainMode::all}) {
    const auto expected = trained(options(2, mode), /*with_prompts=*/false, 0, 2);
    expect_same_bits(trained(options(2, mode), /*with_prompts=*/true, 0, 3), expected);
    expect_same_bits(trained(options(2, mode), /*with_prompts=*/true, 1, 2), expected);
  }
}

TEST_F(EmptySteps, CountForTheGroupsWhoseTurnItWas) {
  const auto hift = options(1, config::TrainMode::all, /*groups=*/2);
  expect_same_bits(trained(hift, /*with_prompts=*/true, 0, 6), trained(hift, /*with_prompts=*/false, 0, 4));
}

TEST(CheckLearned, RefusesTextOfPromptsOnly) {
  const auto source = prompt_source(16, {{random_tokens(40, 1), 40}, {random_tokens(60, 2), 0}});
  EXPECT_NO_THROW(check_learned(source, 3, "data.train"));
  try {
    check_learned(source, 2, "data.train");
    FAIL() << "two sequences of prompts were taken";
  } catch (const base::UserError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("data.train: there is nothing to learn in the 2 sequences"));
    EXPECT_THAT(error.what(), testing::HasSubstr("prompt_tokens"));
  }
}

}  // namespace ee::train
