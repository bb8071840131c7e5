#include "heads.h"

#include "ee/infer/engine.h"

namespace ee::eval {

void for_each_head(const infer::Model& model, const at::Tensor& tokens,
                   const std::function<void(const HeadRows&)>& visit) {
  const c10::AutoGradMode no_grad(false);
  const model::Backbone& backbone = model.backbone;
  const auto visit_exits_at = [&](int64_t depth, const model::LayerTrace& trace) {
    for (size_t i = 0; i < model.exits.size(); ++i) {
      const exits::ExitHead& exit = model.exits[i];
      if (exit.spec.depth() == depth) {
        const at::Tensor rows = exit.forward(backbone, exits::exit_input(exit.spec, trace)).flatten(0, 1);
        visit({static_cast<int64_t>(i), rows, exit.head.to(rows.scalar_type()), exit.spec.temperature});
      }
    }
  };
  const at::Tensor hidden = model::run_layers(backbone, tokens, backbone.config.layers, visit_exits_at);
  const at::Tensor rows = model::rms_norm(hidden, backbone.final_norm, backbone.config.rms_norm_eps);
  visit({infer::kFinalLayer, rows.flatten(0, 1), backbone.head, 1.0});
}

}  // namespace ee::eval
