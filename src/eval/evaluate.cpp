#include "ee/eval/evaluate.h"

#include <iterator>

#include "ee/base/error.h"
#include "ee/infer/engine.h"
#include "ee/kernels/linear_cross_entropy.h"
#include "heads.h"

namespace ee::eval {

namespace {

ExitResult empty_result(const infer::Model& model, int64_t exit) {
  ExitResult result;
  result.depth = model.exit_depth(exit);
  result.layer = exit == infer::kFinalLayer ? model.backbone.config.layers
                                            : model.exits.at(static_cast<size_t>(exit)).spec.layer;
  for (const double threshold : kThresholds) {
    result.thresholds.push_back({.threshold = threshold});
  }
  return result;
}

int64_t count(const at::Tensor& mask) { return mask.sum().item<int64_t>(); }

// Adds one pass: the statistics of every exit in order, then of the final layer. Losses are sums here.
void add_pass(Evaluation& sum, const std::vector<kernels::TokenStats>& heads) {
  const kernels::TokenStats& last = heads.back();
  std::vector<at::Tensor> staying;  // per threshold: tokens no exit has taken yet, [tokens] bool
  for ([[maybe_unused]] const double threshold : kThresholds) {
    staying.push_back(at::ones({last.argmax.numel()}, at::kBool));
  }
  sum.tokens += last.loss.numel();
  for (size_t h = 0; h < heads.size(); ++h) {
    const bool is_final = h + 1 == heads.size();
    ExitResult& result = is_final ? sum.final : sum.exits[h];
    const at::Tensor agrees = heads[h].argmax.eq(last.argmax);
    result.loss += heads[h].loss.sum(at::kDouble).item<double>();
    result.agree += count(agrees);
    for (size_t t = 0; t < std::size(kThresholds); ++t) {
      at::Tensor leaving = staying[t];
      if (!is_final) {
        leaving = leaving.logical_and(heads[h].confidence.ge(kThresholds[t]));
      }
      result.thresholds[t].leave += count(leaving);
      result.thresholds[t].agree += count(leaving.logical_and(agrees));
      staying[t] = staying[t].logical_and(leaving.logical_not());
    }
  }
}

}  // namespace

Evaluation evaluate(const infer::Model& model, const Sequences& sequences,
                    const std::function<void(int64_t done)>& progress) {
  EE_CHECK(!sequences.empty(), "nothing to evaluate");
  Evaluation evaluation;
  for (size_t i = 0; i < model.exits.size(); ++i) {
    evaluation.exits.push_back(empty_result(model, static_cast<int64_t>(i)));
  }
  evaluation.final = empty_result(model, infer::kFinalLayer);
  for_each_batch(sequences, [&](const SequenceBatch& batch, int64_t done) {
    std::vector<kernels::TokenStats> heads;
    for_each_head(model, batch, [&](const HeadRows& head) {
      heads.push_back(kernels::linear_token_stats(head.rows, head.weight, batch.targets, head.temperature));
      check_finite(model, batch, head.exit, heads.back().confidence);
    });
    add_pass(evaluation, heads);
    if (progress) {
      progress(done);
    }
  });
  const auto tokens = static_cast<double>(evaluation.tokens);
  for (ExitResult& exit : evaluation.exits) {
    exit.loss /= tokens;
  }
  evaluation.final.loss /= tokens;
  return evaluation;
}

}  // namespace ee::eval
