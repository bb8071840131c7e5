#include "full_step.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <deque>

#include "ee/exits/exit_loss.h"
#include "stage_walk.h"

namespace ee::train {

namespace {

model::Backbone in_dtype(const Stage& stage, model::Backbone backbone, at::ScalarType dtype) {
  model::visit_backbone(backbone,
                        [dtype](const auto&, const auto&, at::Tensor& member) { member = member.to(dtype); },
                        {.embedding = stage.is_first, .head = stage.needs_head});
  if (backbone.config.tie_embeddings && stage.needs_head) backbone.head = backbone.embedding;
  return backbone;
}

// When the gradient of `tensor` has been computed, `more` joins it on its way.
void add_on_the_way(const at::Tensor& tensor, const at::Tensor& more) {
  if (more.defined()) tensor.register_hook([more](const at::Tensor& gradient) { return gradient.add(more); });
}

at::Tensor sum_of(const at::Tensor& a, const at::Tensor& b) {
  return !a.defined() ? b : !b.defined() ? a : a.add(b);
}

}  // namespace

FullStep::FullStep(const Stage& stage, model::Backbone masters, at::ScalarType dtype,
                   const config::TuneOptions& options)
    : options_(options),
      masters_(std::move(masters)),
      computed_(in_dtype(stage, masters_, dtype)),
      groups_(backbone_groups(masters_, stage)),
      turns_(options.train.hift, masters_.config.layers, options.seed),
      active_(turns_.active(0)) {
  EE_CHECK(masters_.dtype() == at::kFloat, "masters are not float32");
  EE_CHECK(masters_.last_layer() == stage.last_layer, "layers up to {}, the stage has {}",
           masters_.last_layer(), stage.last_layer);
  final_.spec = final_exit(masters_.config, options.train);
  exits::bind_shared(final_, masters_);
}

void FullStep::refresh() {
  if (computed_.dtype() == at::kFloat) return;  // the masters themselves
  const c10::AutoGradMode no_grad(false);
  std::vector<at::Tensor> copies;
  const model::BackboneEnds ends{.embedding = computed_.embedding.defined(),
                                 .head = computed_.head.defined()};
  model::visit_backbone(
      computed_, [&](const auto&, const auto&, at::Tensor& member) { copies.push_back(member); }, ends);
  auto copy = copies.begin();
  for (const auto& group : groups_)
    for (const auto& tensor : group.tensors) (copy++)->copy_(tensor.member);
}

int64_t FullStep::lowest(const Stage& stage) const {
  return stage.count > 1 ? stage.first_layer - 1 : active_.first;
}

void FullStep::begin(const FullView& view, int64_t step) {
  active_ = turns_.active(step);
  std::vector<int64_t> units;
  for (const auto& exit : view.exits) units.push_back(exit.spec.depth());
  for (const auto& group : groups_) units.push_back(group.unit);
  // First take, then give: the buffers of one turn become those of the next.
  for (size_t i = 0; i < units.size(); ++i)
    if (!active_.contains(units[i])) view.optimizer.activate(i, false);
  for (size_t i = 0; i < units.size(); ++i)
    if (active_.contains(units[i])) view.optimizer.activate(i, true);
}

void FullStep::accumulate(const FullView& view, int64_t count,
                          const std::function<data::Batch(int64_t)>& batch, double scale, int64_t tokens,
                          std::vector<double>& losses) {
  const c10::AutoGradMode no_grad(false);
  weights_ = {.exits = scale / static_cast<double>(tokens), .final = 1.0 / static_cast<double>(tokens)};
  const int64_t ahead = view.stage.count > 1 ? count : 1;
  std::deque<MicroBatch> waiting;
  for (int64_t i = 0; i < count; ++i) {
    waiting.push_back(forward(view, batch(i), i + 1 == count, losses));
    if (static_cast<int64_t>(waiting.size()) < ahead) continue;
    for (; !waiting.empty(); waiting.pop_front()) backward(view, std::move(waiting.front()), losses);
  }
  const size_t exits = view.exits.size();
  for (size_t i = 0; i < groups_.size(); ++i) {
    const auto& group = view.optimizer.groups()[exits + i];
    if (!group.active || is_layer(groups_[i])) continue;
    for (const auto& parameter : group.parameters) sum_over_stages(view, groups_[i], parameter.gradient);
    view.optimizer.reduce(exits + i);
  }
}

bool FullStep::is_layer(const BackboneGroup& group) const {
  return group.unit > 0 && group.unit <= masters_.config.layers;
}

// Forward ------------------------------------------------------------

FullStep::MicroBatch FullStep::forward(const FullView& view, const data::Batch& batch, bool last,
                                       std::vector<double>& losses) {
  MicroBatch run{.tokens = batch.inputs.to(computed_.device()),
                 .targets = batch.targets.to(computed_.device()),
                 .layers = {},
                 .stream = {},
                 .last = last};
  const int64_t lowest = this->lowest(view.stage);
  run.stream = view.stage.is_first
                   ? computed_.embed(run.tokens)
                   : view.link->receive(stream_sizes(computed_, run.tokens), computed_.options());
  const auto visit_untouched = [&](int64_t depth, const model::LayerTrace& trace) {
    if (depth < lowest)
      for (size_t i = 0; i < view.exits.size(); ++i)
        if (view.exits[i].spec.depth() == depth) visit(view, i, trace, run, /*gradient=*/false, losses);
  };
  if (view.stage.is_first) visit_untouched(0, output_only(run.stream));
  for (int64_t layer = view.stage.first_layer; layer <= view.stage.last_layer; ++layer) {
    const bool keep = layer >= lowest;
    LayerRun step =
        keep && !options_.train.recompute ? record(layer, lowest, run.stream) : LayerRun{run.stream, {}};
    if (!step.trace.output.defined()) {
      const auto trace = model::decoder_layer(computed_.config, computed_.layer(layer), run.stream,
                                              computed_.rope, nullptr, computed_.ranks);
      visit_untouched(layer, trace);
      run.stream = trace.output;
    } else {
      run.stream = step.trace.output.detach();
    }
    if (keep) run.layers.push_back(std::move(step));
  }
  if (!view.stage.is_last) view.link->send(run.stream);
  return run;
}

FullStep::LayerRun FullStep::record(int64_t layer, int64_t lowest, const at::Tensor& input) const {
  const c10::AutoGradMode recorded(true);
  LayerRun run{input.detach().set_requires_grad(layer > lowest), {}};
  const auto& masters = masters_.layer(layer);
  const bool trained = masters.input_norm.requires_grad();
  run.trace = model::decoder_layer(
      computed_.config,
      trained ? model::in_dtype(masters_.config, masters, computed_.dtype()) : computed_.layer(layer),
      run.input, computed_.rope, nullptr, computed_.ranks);
  return run;
}

// Backward ------------------------------------------------------------

void FullStep::backward(const FullView& view, MicroBatch batch, std::vector<double>& losses) {
  const int64_t lowest = this->lowest(view.stage);
  at::Tensor gradient = view.stage.is_last ? final_gradient(view, batch, losses)
                                           : view.link->receive_back(stream_sizes(computed_, batch.tokens),
                                                                     computed_.options());
  batch.stream.reset();
  for (int64_t layer = view.stage.last_layer; !batch.layers.empty(); --layer) {
    LayerRun run = std::move(batch.layers.back());
    batch.layers.pop_back();
    if (!run.trace.output.defined()) run = record(layer, lowest, run.input);
    gradient = through(view, layer, std::move(run), batch, std::move(gradient), losses);
    if (batch.last) done(view, view.exits.size() + layer_group(layer));
  }
  if (!view.stage.is_first) return view.link->send_back(gradient);
  if (lowest > 0) return;
  for (size_t i = 0; i < view.exits.size(); ++i)
    if (view.exits[i].spec.depth() == 0)
      gradient = sum_of(gradient, visit(view, i, output_only(computed_.embed(batch.tokens)), batch,
                                        /*gradient=*/true, losses)
                                      .hidden);
  into_embedding(batch.tokens, gradient);
}

at::Tensor FullStep::final_gradient(const FullView& view, const MicroBatch& batch,
                                    std::vector<double>& losses) {
  exits::ExitInput gradient;
  const bool wanted = lowest(view.stage) <= masters_.config.layers;
  losses.back() += exits::accumulate_exit_gradient(
      computed_, final_, {.hidden = batch.stream, .mlp_input = {}}, batch.targets,
      {.gradient_filter = options_.exits.gradient_filter, .scale = weights_.final * final_.spec.weight},
      /*teacher=*/nullptr, wanted ? &gradient : nullptr);
  return gradient.hidden.defined() ? gradient.hidden : at::zeros_like(batch.stream);
}

// Back through one layer, with what the exits that listen to it give: from the gradient of its output to that
// of its input.
at::Tensor FullStep::through(const FullView& view, int64_t layer, LayerRun run, const MicroBatch& batch,
                             at::Tensor gradient, std::vector<double>& losses) {
  for (size_t i = 0; i < view.exits.size(); ++i) {
    if (view.exits[i].spec.depth() != layer) continue;
    const auto from_exit = visit(view, i, run.trace, batch, /*gradient=*/true, losses);
    if (from_exit.mlp_input.defined()) {
      add_on_the_way(run.trace.post_attention, from_exit.hidden);
      add_on_the_way(run.trace.mlp_input, from_exit.mlp_input);
    } else {
      gradient = sum_of(gradient, from_exit.hidden);
    }
  }
  run.trace.output.backward(gradient);
  return run.input.grad();
}

exits::ExitInput FullStep::visit(const FullView& view, size_t index, const model::LayerTrace& trace,
                                 const MicroBatch& batch, bool gradient, std::vector<double>& losses) {
  auto& exit = view.exits[index];
  exits::ExitInput result;
  losses[index] +=
      exits::accumulate_exit_gradient(computed_, exit, exits::exit_input(exit.spec, trace), batch.targets,
                                      {.token_weights = options_.exits.token_weights,
                                       .gradient_filter = options_.exits.gradient_filter,
                                       .scale = weights_.exits * exit.spec.weight},
                                      /*teacher=*/nullptr, gradient ? &result : nullptr);
  if (batch.last) done(view, index);
  return result;
}

void FullStep::into_embedding(const at::Tensor& tokens, const at::Tensor& stream_gradient) {
  const parallel::TensorRanks& ranks = masters_.ranks;
  const at::Tensor rows =
      ranks.gather_tokens(stream_gradient).flatten(0, 1).to(at::kFloat);  // [tokens, hidden]
  ranks.add_to_vocabulary_rows(masters_.embedding.grad(), tokens.flatten(), rows, masters_.config.vocab_size);
}

// Between stages and replicas ------------------------------------------------------------

void FullStep::sum_over_stages(const FullView& view, const BackboneGroup& group,
                               const at::Tensor& gradient) const {
  if (!view.ranks || group.stages.size() == 1) return;
  const comm::Group& pipeline = view.ranks->pipeline;
  const int owner = static_cast<int>(group.stages.front());
  if (pipeline.rank() != owner) {
    pipeline.send(gradient, owner);
    pipeline.receive(gradient, owner);
    return;
  }
  const at::Tensor other = at::empty_like(gradient);
  for (size_t i = 1; i < group.stages.size(); ++i) {
    pipeline.receive(other, static_cast<int>(group.stages[i]));
    gradient.add_(other);
  }
  for (size_t i = 1; i < group.stages.size(); ++i) pipeline.send(gradient, static_cast<int>(group.stages[i]));
}

size_t FullStep::layer_group(int64_t layer) const {
  for (size_t i = 0; i < groups_.size(); ++i)
    if (groups_[i].unit == layer) return i;
  EE_CHECK(false, "layer {} is not on this stage", layer);
}

void FullStep::done(const FullView& view, size_t group) const {
  if (view.optimizer.groups()[group].active) view.optimizer.reduce(group);
}

}  // namespace ee::train
