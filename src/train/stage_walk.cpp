#include "stage_walk.h"

namespace ee::train {

namespace {

at::Tensor receive_stream(const StageView& view, const at::Tensor& tokens) {
  const model::Backbone& backbone = view.backbone;
  const int64_t own_tokens =
      backbone.ranks.sequence() ? tokens.size(1) / backbone.ranks.size() : tokens.size(1);
  return view.link->receive({tokens.size(0), own_tokens, backbone.config.hidden_size}, backbone.options());
}

}  // namespace

at::Tensor walk_stage(const StageView& view, const data::Batch& batch, int64_t depth,
                      const std::function<void(size_t exit, const exits::ExitInput& input)>& visit) {
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
  const at::Tensor tokens = batch.inputs().to(view.backbone.device());
  const at::Tensor stream =
      view.stage.is_first
          ? model::run_layers(view.backbone, tokens, depth, listen)
          : model::continue_layers(view.backbone, receive_stream(view, tokens), depth, listen);
  if (!view.stage.is_last) view.link->send(stream);
  for (const Waiting& exit : waiting) visit(exit.exit, exit.input);
  return stream;
}

}  // namespace ee::train
