#include "heads.h"

#include <algorithm>

#include "ee/base/error.h"
#include "ee/infer/engine.h"

namespace ee::eval {

namespace {

constexpr int64_t kTokensPerPass = 1024;  // bounds the memory of one forward pass

at::Tensor stack_sequences(const std::vector<std::vector<int64_t>>& sequences, size_t first, size_t end) {
  std::vector<at::Tensor> rows;
  for (size_t i = first; i < end; ++i) {
    EE_CHECK(sequences[i].size() >= 2 && sequences[i].size() == sequences[0].size(),
             "sequence {} has {} tokens, the first one {}", i, sequences[i].size(), sequences[0].size());
    rows.push_back(at::tensor(sequences[i], at::kLong));
  }
  return at::stack(rows);  // [count, length + 1]
}

}  // namespace

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

void for_each_batch(const std::vector<std::vector<int64_t>>& sequences,
                    const std::function<void(const at::Tensor& tokens, int64_t done)>& visit) {
  const auto length = static_cast<int64_t>(sequences.at(0).size()) - 1;
  const auto batch = static_cast<size_t>(std::max<int64_t>(1, kTokensPerPass / std::max<int64_t>(1, length)));
  for (size_t first = 0; first < sequences.size(); first += batch) {
    const size_t end = std::min(first + batch, sequences.size());
    visit(stack_sequences(sequences, first, end), static_cast<int64_t>(end));
  }
}

}  // namespace ee::eval
