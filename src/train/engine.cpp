#include "ee/train/engine.h"

#include <algorithm>
#include <cmath>

#include "exit_inputs.h"
#include "full_step.h"
#include "teacher_walk.h"

namespace ee::train {

static_assert(data::kNoTarget == kernels::kIgnoreToken);  // rooms that do not include each other

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

// The exits' own tensors, then the backbone's where it is trained.
std::vector<optim::ParameterGroup> parameters_of(const model::Backbone& backbone,
                                                 std::vector<exits::ExitHead>& exits, FullStep* full,
                                                 const parallel::Ranks* ranks) {
  std::vector<optim::ParameterGroup> groups;
  for (auto& exit : exits) {
    auto& group = groups.emplace_back(optim::ParameterGroup{.layer = exit.spec.layer, .parameters = {}});
    group.active = !full || full->is_active(exit.spec.depth());
    exits::visit_exit(backbone.config, exit,
                      [&](const std::string& name, const model::TensorShape& shape, at::Tensor& member) {
                        group.parameters.push_back(make_parameter(backbone, name, shape, member, ranks));
                      });
  }
  if (!full) return groups;
  for (auto& trained : full->groups()) {
    auto& group = groups.emplace_back(optim::ParameterGroup{.layer = trained.unit,
                                                            .parameters = {},
                                                            .name = trained.title,
                                                            .stages = std::ssize(trained.stages),
                                                            .active = full->is_active(trained.unit)});
    for (const auto& tensor : trained.tensors)
      group.parameters.push_back(make_parameter(backbone, tensor.name, tensor.shape, tensor.member, ranks));
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

Stage whole(const model::Backbone& backbone, const std::vector<exits::ExitHead>& exits,
            const config::TuneOptions& options) {
  std::vector<config::ExitSpec> specs;
  for (const auto& exit : exits) specs.push_back(exit.spec);
  return {.last_layer = run_depth(backbone.config, specs, options),
          .loaded_layers = backbone.last_layer(),
          .exit_count = exits.size()};
}

// The norms of the exits stay, those of the backbone's groups become one. What several stages hold counts for
// its share.
void join_backbone_norms(const std::vector<optim::ParameterGroup>& groups, size_t exits,
                         std::vector<double>& norms) {
  double joined = 0.0;
  for (size_t i = exits; i < groups.size(); ++i)
    joined = std::hypot(joined, norms[i] / std::sqrt(static_cast<double>(groups[i].stages)));
  norms.resize(exits);
  norms.push_back(joined);
}

}  // namespace

Engine::Engine(Stage stage, model::Backbone backbone, std::vector<exits::ExitHead> exits,
               const config::TuneOptions& options, int64_t steps, const parallel::Ranks* ranks,
               at::ScalarType dtype)
    : stage_(std::move(stage)),
      backbone_(std::move(backbone)),
      exits_(std::move(exits)),
      options_(options),
      ranks_(ranks),
      link_(ranks ? std::make_unique<parallel::StageLink>(*ranks, options.parallel.in_flight) : nullptr),
      full_(options.train.backbone() ? std::make_unique<FullStep>(stage_, backbone_, dtype, options)
                                     : nullptr),
      optimizer_(options.optimizer, parameters_of(backbone_, exits_, full_.get(), ranks), reduce_ranks(ranks),
                 options.parallel.shard_optimizer),
      learning_rate_(options.optimizer, options.schedule, steps),
      steps_(steps) {
  if (full_) backbone_ = full_->computed();
}

Engine::Engine(model::Backbone backbone, std::vector<exits::ExitHead> exits,
               const config::TuneOptions& options, int64_t steps)
    : Engine(whole(backbone, exits, options), backbone, exits, options, steps) {}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;

StepResult Engine::step(const data::BatchSource& source, int64_t step) {
  const int64_t batch = options_.batch.global_batch;
  const std::vector<double> zeros(exits_.size() + (full_ ? 1 : 0), 0.0);
  StepResult result{.losses = zeros,
                    .gradient_norms = zeros,
                    .learning_rate = learning_rate_.at(full_ ? full_->turns().rate_step(step) : step),
                    .learned_tokens = source.learned_tokens(step * batch, batch)};
  find_empty_steps(source, step);
  result.empty_steps = std::ranges::count_if(empty_steps_, [&](int64_t empty) { return empty <= step; });
  if (result.learned_tokens > 0) update(source, step, result);
  if (ranks_ && options_.parallel.schedule == config::PipelineSchedule::flush) ranks_->pipeline.barrier();
  return result;
}

void Engine::update(const data::BatchSource& source, int64_t step, StepResult& result) {
  accumulate(source, step, result.learned_tokens, result.losses);
  for (double& loss : result.losses) loss /= static_cast<double>(result.learned_tokens);
  if (ranks_) result.losses = parallel::sum_numbers(ranks_->data, result.losses, ranks_->device);
  result.gradient_norms = optimizer_.step(result.learning_rate, step, updates_before(step));
  if (full_) join_backbone_norms(optimizer_.groups(), exits_.size(), result.gradient_norms);
  masters_changed();
}

// A run that begins at a later step looks at all the batches before it: which steps were empty follows from
// the text, and is no state. It costs a glance at each, since nearly every sequence has something to learn.
void Engine::find_empty_steps(const data::BatchSource& source, int64_t step) {
  const int64_t batch = options_.batch.global_batch;
  for (; looked_at_ <= step; ++looked_at_)
    if (!source.first_learned(looked_at_ * batch, batch)) empty_steps_.push_back(looked_at_);
}

int64_t Engine::updates_before(int64_t step) const {
  const auto of_these_groups = [&](int64_t empty) {
    return empty < step && (!full_ || full_->turns().same_turn(empty, step));
  };
  return (full_ ? full_->turns().cycle(step) : step) - std::ranges::count_if(empty_steps_, of_these_groups);
}

void Engine::use(std::unique_ptr<const ExitInputs> stored) { exit_inputs_ = std::move(stored); }

void Engine::masters_changed() {
  if (full_) full_->refresh();
}

void Engine::accumulate(const data::BatchSource& source, int64_t step, int64_t tokens,
                        std::vector<double>& losses) {
  const int64_t micro_batch = options_.batch.micro_batch;
  const int64_t own = options_.batch.global_batch / micro_batch / data_ranks();
  const double factor = optim::exit_weight_factor(options_.exits.weight_schedule, step, steps_);
  const auto batch = [&](int64_t i) {  // of this replica
    return source.at(step * options_.batch.global_batch + (data_rank() + i * data_ranks()) * micro_batch,
                     micro_batch);
  };
  if (full_) {
    const FullView view{stage_, exits_, optimizer_, link_.get(), ranks_};
    full_->begin(view, step);
    return full_->accumulate(view, own, batch, factor, tokens, losses);
  }
  const double scale = factor / static_cast<double>(tokens);
  if (options_.exits.loss.needs_teacher()) return accumulate_taught(own, batch, scale, losses);
  for (int64_t i = 0; i < own; ++i) accumulate(batch(i), scale, i + 1 == own, losses);
}

void Engine::accumulate(const data::Batch& batch, double scale, bool last, std::vector<double>& losses) {
  const at::Tensor targets = batch.targets.to(backbone_.device());  // [micro_batch, sequence_length] i64
  walk_stage({stage_, backbone_, exits_, link_.get(), exit_inputs_.get()}, batch, stage_.last_layer,
             [&](size_t i, const exits::ExitInput& input) {
               losses[i] += exits::accumulate_exit_gradient(backbone_, exits_[i], input, targets,
                                                            loss_options(i, scale));
               if (last) optimizer_.reduce(i);
             });
}

// The teacher is known behind the last layer only: the exits wait for it with their inputs.
void Engine::accumulate_taught(int64_t count, const std::function<data::Batch(int64_t)>& batch, double scale,
                               std::vector<double>& losses) {
  int64_t visited = 0;
  TeacherWalk walk({stage_, backbone_, exits_, link_.get(), exit_inputs_.get()}, ranks_,
                   [&](const data::Batch& of, const std::vector<exits::ExitInput>& inputs,
                       const at::Tensor& final_hidden) {
                     const at::Tensor targets = of.targets.to(backbone_.device());
                     const bool last = ++visited == count;
                     if (inputs.empty()) return;
                     const auto teacher =
                         exits::make_teacher(backbone_, final_hidden, targets, options_.exits.loss,
                                             options_.exits.gradient_filter);
                     for (size_t i = 0; i < inputs.size(); ++i) {
                       losses[i] += exits::accumulate_exit_gradient(backbone_, exits_[i], inputs[i], targets,
                                                                    loss_options(i, scale), &teacher);
                       if (last) optimizer_.reduce(i);
                     }
                   });
  for (int64_t i = 0; i < count; ++i) walk.push(batch(i));
  walk.drain();
}

exits::ExitLossOptions Engine::loss_options(size_t exit, double scale) const {
  return {.loss = options_.exits.loss,
          .token_weights = options_.exits.token_weights,
          .gradient_filter = options_.exits.gradient_filter,
          .scale = scale * exits_[exit].spec.weight};
}

}  // namespace ee::train
