#include "stage_walk.h"

#include "exit_inputs.h"

namespace ee::train {

std::vector<int64_t> stream_sizes(const model::Backbone& backbone, const at::Tensor& tokens) {
  const int64_t parts = backbone.ranks.sequence() ? backbone.ranks.size() : 1;
  return {tokens.size(0), tokens.size(1) / parts, backbone.config.hidden_size};
}

at::Tensor walk_stage(const StageView& view, const data::Batch& batch, int64_t depth,
                      const std::function<void(size_t exit, const exits::ExitInput& input)>& visit) {
  if (view.stored) {
    for (size_t i = 0; i < view.exits.size(); ++i)
      visit(i, view.stored->read(view.stage.first_exit + i, batch, view.backbone));
    return {};
  }
  struct Waiting {
    size_t exit;
    exits::ExitInput input;
  };
  std::vector<Waiting> waiting;
  const auto listen = [&](int64_t at, const model::LayerTrace& trace) {
    for (size_t i = 0; i < view.exits.size(); ++i) {
      if (view.exits[i].spec.depth() != at) continue;
      const exits::ExitInput input = exits::exit_input(view.exits[i].spec, trace);
      if (view.stage.is_last)
        visit(i, input);
      else
        waiting.push_back({i, input});
    }
  };
  const at::Tensor tokens = batch.inputs.to(view.backbone.device());
  const at::Tensor stream =
      view.stage.is_first ? model::run_layers(view.backbone, tokens, depth, listen)
                          : model::continue_layers(view.backbone,
                                                   view.link->receive(stream_sizes(view.backbone, tokens),
                                                                      view.backbone.options()),
                                                   depth, listen);
  if (!view.stage.is_last) view.link->send(stream);
  for (const Waiting& exit : waiting) visit(exit.exit, exit.input);
  return stream;
}

}  // namespace ee::train
