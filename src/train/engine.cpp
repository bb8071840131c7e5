#include "ee/train/engine.h"

#include <algorithm>

#include "ee/exits/exit_loss.h"
#include "stage_walk.h"

namespace ee::train {

namespace {

optim::Parameter make_parameter(const model::Backbone& backbone, const std::string& name,
                                const model::TensorShape& shape, const at::Tensor& master,
                                const parallel::Ranks* ranks) {
  optim::Parameter parameter = optim::Parameter::make(name, master);
  if (!ranks || ranks->tensor.size() == 1) return parameter;
  parameter.tensor_copies = parallel::copies_of(backbone.config, shape.split, ranks->tensor.size());
  // Each copy of a key/value head serves other query heads; with sequence parallelism each copy of a norm or
  // bias sees other tokens.
  if (shape.split == parallel::Split::kv_heads && ranks->kv) parameter.partial_over = ranks->kv;
  if (shape.split == parallel::Split::none && ranks->tensor.sequence())
    parameter.partial_over = ranks->tensor.group();
  return parameter;
}

// The exits' own tensors.
std::vector<optim::ParameterGroup> parameters_of(const model::Backbone& backbone,
                                                 std::vector<exits::ExitHead>& exits,
                                                 const parallel::Ranks* ranks) {
  std::vector<optim::ParameterGroup> groups;
  for (auto& exit : exits) {
    auto& group = groups.emplace_back(optim::ParameterGroup{.layer = exit.spec.layer, .parameters = {}});
    exits::visit_exit(backbone.config, exit,
                      [&](const std::string& name, const model::TensorShape& shape, at::Tensor& member) {
                        group.parameters.push_back(make_parameter(backbone, name, shape, member, ranks));
                      });
  }
  return groups;
}

optim::ReduceRanks reduce_ranks(const parallel::Ranks* ranks) {
  if (!ranks) return {};
  const auto several = [](const comm::Group& group) {
    return group.size() > 1 ? std::optional(group) : std::nullopt;
  };
  return {.data = several(ranks->data),
          .tensor = ranks->tensor.group(),
          .pipeline = several(ranks->pipeline),
          .device = ranks->device};
}

Stage whole(const model::Backbone& backbone, const std::vector<exits::ExitHead>& exits) {
  Stage stage{.last_layer = 0, .loaded_layers = backbone.last_layer(), .exit_count = exits.size()};
  for (const auto& exit : exits) stage.last_layer = std::max(stage.last_layer, exit.spec.depth());
  return stage;
}

}  // namespace

Engine::Engine(Stage stage, model::Backbone backbone, std::vector<exits::ExitHead> exits,
               const config::TuneOptions& options, int64_t steps, const parallel::Ranks* ranks)
    : stage_(std::move(stage)),
      backbone_(std::move(backbone)),
      exits_(std::move(exits)),
      options_(options),
      ranks_(ranks),
      link_(ranks ? std::make_unique<parallel::StageLink>(*ranks, options.parallel.in_flight) : nullptr),
      optimizer_(options.optimizer, parameters_of(backbone_, exits_, ranks), reduce_ranks(ranks),
                 options.parallel.shard_optimizer),
      learning_rate_(options.optimizer, options.schedule, steps),
      steps_(steps) {}

Engine::Engine(model::Backbone backbone, std::vector<exits::ExitHead> exits,
               const config::TuneOptions& options, int64_t steps)
    : Engine(whole(backbone, exits), backbone, exits, options, steps) {}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;

StepResult Engine::step(const data::BatchSource& source, int64_t step) {
  const int64_t micro_batch = options_.batch.micro_batch;
  const int64_t micro_batches = options_.batch.global_batch / micro_batch;
  const double scale = optim::exit_weight_factor(options_.exits.weight_schedule, step, steps_) /
                       static_cast<double>(micro_batches);
  StepResult result{.losses = std::vector<double>(exits_.size(), 0.0),
                    .gradient_norms = {},
                    .learning_rate = learning_rate_.at(step)};
  for (int64_t i = data_rank(); i < micro_batches; i += data_ranks()) {
    const int64_t sample = step * options_.batch.global_batch + i * micro_batch;
    accumulate(source.at(sample, micro_batch), scale, i + data_ranks() >= micro_batches, result.losses);
  }
  for (double& loss : result.losses) loss /= static_cast<double>(micro_batches);
  if (ranks_) result.losses = parallel::sum_numbers(ranks_->data, result.losses, ranks_->device);
  result.gradient_norms = optimizer_.step(result.learning_rate, step);
  if (ranks_ && options_.parallel.schedule == config::PipelineSchedule::flush) ranks_->pipeline.barrier();
  return result;
}

void Engine::accumulate(const data::Batch& batch, double scale, bool last, std::vector<double>& losses) {
  const at::Tensor targets = batch.targets().to(backbone_.device());  // [micro_batch, sequence_length] i64
  walk_stage({stage_, backbone_, exits_, link_.get()}, batch, stage_.last_layer,
             [&](size_t i, const exits::ExitInput& input) {
               losses[i] +=
                   exits::accumulate_exit_gradient(backbone_, exits_[i], input, targets,
                                                   {.token_weights = options_.exits.token_weights,
                                                    .gradient_filter = options_.exits.gradient_filter,
                                                    .scale = scale * exits_[i].spec.weight});
               if (last) optimizer_.reduce(i);
             });
}

}  // namespace ee::train
