#include "heads.h"

#include <algorithm>

#include "ee/base/error.h"
#include "ee/infer/engine.h"
#include "ee/kernels/linear_cross_entropy.h"

namespace ee::eval {

namespace {

constexpr int64_t kTokensPerPass = 1024;  // bounds the memory of one forward pass

at::Tensor stack(const Sequences& sequences, size_t first, size_t end,
                 const std::vector<int64_t> Sequence::*member) {
  std::vector<at::Tensor> rows;
  for (size_t i = first; i < end; ++i) {
    const std::vector<int64_t>& row = sequences[i].*member;
    EE_CHECK(!row.empty() && row.size() == sequences[0].tokens.size(),
             "sequence {} has {} tokens, the first one {}", i, row.size(), sequences[0].tokens.size());
    rows.push_back(at::tensor(row, at::kLong));
  }
  return at::stack(rows);  // [count, length]
}

SequenceBatch make_batch(const Sequences& sequences, size_t first, size_t end) {
  const at::Tensor targets = stack(sequences, first, end, &Sequence::targets).flatten();
  const at::Tensor scored = targets.ne(kernels::kIgnoreToken).nonzero().squeeze(1);
  return {.tokens = stack(sequences, first, end, &Sequence::tokens),
          .scored = scored,
          .targets = targets.index_select(0, scored),
          .first = first};
}

}  // namespace

SequenceBatch without_targets(const at::Tensor& tokens, const std::string& origin) {
  return {.tokens = tokens, .scored = at::arange(tokens.numel()), .targets = {}, .origin = origin};
}

void check_finite(const infer::Model& model, const SequenceBatch& batch, int64_t exit,
                  const at::Tensor& numbers, infer::NotFinite::Part part) {
  const at::Tensor bad = at::isfinite(numbers).logical_not().nonzero();
  if (bad.size(0) == 0) {
    return;
  }
  const auto place = batch.scored[bad[0][0]].item<int64_t>();
  const int64_t length = batch.tokens.size(1);
  const size_t number = batch.first + static_cast<size_t>(place / length) + 1;
  throw infer::NotFinite(
      part,
      exit == infer::kFinalLayer ? infer::NotFinite::kModelsHead
                                 : model.exits.at(static_cast<size_t>(exit)).spec.layer,
      place % length, batch.origin.empty() ? fmt::format("sequence {} of the text", number) : batch.origin);
}

void for_each_head(const infer::Model& model, const SequenceBatch& batch,
                   const std::function<void(const HeadRows&)>& visit) {
  const c10::AutoGradMode no_grad(false);
  const model::Backbone& backbone = model.backbone;
  const auto scored = [&](const at::Tensor& hidden) {
    return hidden.flatten(0, 1).index_select(0, batch.scored);
  };
  const auto visit_exits_at = [&](int64_t depth, const model::LayerTrace& trace) {
    for (size_t i = 0; i < model.exits.size(); ++i) {
      const exits::ExitHead& exit = model.exits[i];
      if (exit.spec.depth() == depth) {
        const at::Tensor rows = scored(exit.forward(backbone, exits::exit_input(exit.spec, trace)));
        visit({static_cast<int64_t>(i), rows, exit.head.to(rows.scalar_type()), exit.spec.temperature});
      }
    }
  };
  const at::Tensor hidden = model::run_layers(backbone, batch.tokens, backbone.config.layers, visit_exits_at);
  const at::Tensor rows = model::rms_norm(hidden, backbone.final_norm, backbone.config.rms_norm_eps);
  visit({infer::kFinalLayer, scored(rows), backbone.head, 1.0});
}

void for_each_batch(const Sequences& sequences,
                    const std::function<void(const SequenceBatch& batch, int64_t done)>& visit) {
  const auto length = std::ssize(sequences.at(0).tokens);
  const auto batch = static_cast<size_t>(std::max<int64_t>(1, kTokensPerPass / std::max<int64_t>(1, length)));
  for (size_t first = 0; first < sequences.size(); first += batch) {
    const size_t end = std::min(first + batch, sequences.size());
    visit(make_batch(sequences, first, end), static_cast<int64_t>(end));
  }
}

}  // namespace ee::eval
