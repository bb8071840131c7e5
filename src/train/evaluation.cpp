#include "ee/train/evaluation.h"

#include <ATen/ops/eq.h>

#include <algorithm>
#include <cmath>

#include "ee/exits/exit_loss.h"

namespace ee::train {

namespace {

void add(ExitScore& score, const kernels::TokenStats& stats, const at::Tensor& final_argmax) {
  score.loss += stats.loss.sum(at::kDouble).item<double>();
  score.agreement += stats.argmax.eq(final_argmax).sum().item<double>();
}

}  // namespace

double ExitScore::perplexity() const { return std::exp(loss); }

double Evaluation::mean_loss() const {
  double sum = 0;
  for (const auto& exit : exits) sum += exit.loss;
  return sum / static_cast<double>(exits.size());
}

std::optional<Evaluation> evaluate(const model::Backbone& backbone, const std::vector<exits::ExitHead>& exits,
                                   const data::BatchSource& source, int64_t sequences, int64_t micro_batch,
                                   const std::function<bool()>& stop) {
  const c10::AutoGradMode no_grad(false);
  const int64_t count = std::min(sequences, source.sequences().size());
  Evaluation result{.tokens = count * source.sequences().sequence_length(), .exits = {}, .final = {}};
  for (const auto& exit : exits) result.exits.push_back({.layer = exit.spec.layer});
  result.final.layer = backbone.config.layers;

  std::vector<kernels::TokenStats> stats(exits.size());  // of one micro-batch
  for (int64_t sample = 0; sample < count; sample += micro_batch) {
    if (stop()) return std::nullopt;
    const auto batch = source.at(sample, std::min(micro_batch, count - sample));
    const at::Device device = backbone.embedding.device();
    const at::Tensor targets = batch.targets().to(device);
    const at::Tensor last =
        model::run_layers(backbone, batch.inputs().to(device), backbone.config.layers,
                          [&](int64_t depth, const model::LayerTrace& trace) {
                            for (size_t i = 0; i < exits.size(); ++i)
                              if (exits[i].spec.depth() == depth)
                                stats[i] = exits::exit_stats(
                                    backbone, exits[i], exits::exit_input(exits[i].spec, trace), targets);
                          });
    const at::Tensor normed = model::rms_norm(last, backbone.final_norm, backbone.config.rms_norm_eps);
    const auto final =
        kernels::linear_token_stats(normed.flatten(0, 1), backbone.head, targets.reshape({-1}));
    for (size_t i = 0; i < exits.size(); ++i) add(result.exits[i], stats[i], final.argmax);
    add(result.final, final, final.argmax);
  }
  for (auto& exit : result.exits) {
    exit.loss /= static_cast<double>(result.tokens);
    exit.agreement /= static_cast<double>(result.tokens);
  }
  result.final.loss /= static_cast<double>(result.tokens);
  result.final.agreement = 1.0;
  return result;
}

}  // namespace ee::train
