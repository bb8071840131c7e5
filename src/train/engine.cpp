#include "ee/train/engine.h"

#include <algorithm>

#include "ee/exits/exit_loss.h"

namespace ee::train {

namespace {

// The exit's own tensors as parameters whose gradient buffers autograd adds to.
optim::ParameterGroup make_trainable(const config::ModelConfig& config, exits::ExitHead& exit) {
  optim::ParameterGroup group{.layer = exit.spec.layer, .parameters = {}};
  exits::visit_exit(config, exit, [&](const std::string& name, const auto&, at::Tensor& member) {
    auto parameter = optim::Parameter::make(name, member);
    member.set_requires_grad(true);
    member.mutable_grad() = parameter.gradient;
    group.parameters.push_back(std::move(parameter));
  });
  return group;
}

}  // namespace

Engine::Engine(model::Backbone backbone, std::vector<exits::ExitHead> exits,
               const config::TuneOptions& options, int64_t steps)
    : backbone_(std::move(backbone)),
      exits_(std::move(exits)),
      options_(options),
      adamw_(options.optimizer),
      learning_rate_(options.optimizer, options.schedule, steps),
      steps_(steps) {
  for (auto& exit : exits_) groups_.push_back(make_trainable(backbone_.config, exit));
}

StepResult Engine::step(const data::BatchSource& source, int64_t step) {
  const int64_t micro_batches = options_.batch.global_batch / options_.batch.micro_batch;
  const double scale = optim::exit_weight_factor(options_.exits.weight_schedule, step, steps_) /
                       static_cast<double>(micro_batches);
  StepResult result{.losses = std::vector<double>(exits_.size(), 0.0),
                    .gradient_norms = {},
                    .learning_rate = learning_rate_.at(step)};
  for (int64_t i = 0; i < micro_batches; ++i) {
    const int64_t sample = step * options_.batch.global_batch + i * options_.batch.micro_batch;
    accumulate(source.at(sample, options_.batch.micro_batch), scale, result.losses);
  }
  for (double& loss : result.losses) loss /= static_cast<double>(micro_batches);
  result.gradient_norms = adamw_.step(groups_, result.learning_rate, step);
  return result;
}

void Engine::accumulate(const data::Batch& batch, double scale, std::vector<double>& losses) {
  const at::Device device = backbone_.embedding.device();
  const at::Tensor targets = batch.targets().to(device);  // [micro_batch, sequence_length] i64
  const auto train_exits_at = [&](int64_t depth, const model::LayerTrace& trace) {
    for (size_t i = 0; i < exits_.size(); ++i) {
      auto& exit = exits_[i];
      if (exit.spec.depth() != depth) continue;
      losses[i] +=
          exits::accumulate_exit_gradient(backbone_, exit, exits::exit_input(exit.spec, trace), targets,
                                          {.token_weights = options_.exits.token_weights,
                                           .gradient_filter = options_.exits.gradient_filter,
                                           .scale = scale * exit.spec.weight});
    }
  };
  int64_t deepest = 0;
  for (const auto& exit : exits_) deepest = std::max(deepest, exit.spec.depth());
  model::run_layers(backbone_, batch.inputs().to(device), deepest, train_exits_at);
}

}  // namespace ee::train
