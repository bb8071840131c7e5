#include "ee/train/evaluation.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>

#include "ee/base/error.h"
#include "ee/exits/exit_loss.h"
#include "stage_walk.h"

namespace ee::train {

namespace {

double total(const at::Tensor& losses) { return losses.sum(at::kDouble).item<double>(); }

// Sums over tokens; of all exits, as far as this rank knows them.
struct Sums {
  explicit Sums(size_t exits) : loss(exits, 0.0), agree(exits, 0.0) {}

  std::vector<double> loss, agree;
  double final_loss = 0, tokens = 0;  // known to the last stage

  // Adds up what the stages and the replicas have.
  void merge(const parallel::Ranks& ranks) {
    std::vector<double> numbers = loss;
    numbers.insert(numbers.end(), agree.begin(), agree.end());
    numbers.insert(numbers.end(), {final_loss, tokens});
    for (const comm::Group* group : {&ranks.pipeline, &ranks.data})
      numbers = parallel::sum_numbers(*group, numbers, ranks.device);
    const auto exits = static_cast<std::ptrdiff_t>(loss.size());
    std::copy_n(numbers.begin(), exits, loss.begin());
    std::copy_n(numbers.begin() + exits, exits, agree.begin());
    final_loss = numbers[numbers.size() - 2];
    tokens = numbers.back();
  }
};

// One rank's work on a micro-batch. What exits in front of the last stage predict travels behind the stream:
// the final layer's opinion is known there only.
void add_micro_batch(const StageView& view, const data::Batch& batch, Sums& sums) {
  const model::Backbone& backbone = view.backbone;
  const at::Tensor targets = batch.targets.to(backbone.device());
  std::vector<at::Tensor> predictions(view.exits.size());  // [tokens] i64 each
  const at::Tensor stream =
      walk_stage(view, batch, view.stage.loaded_layers, [&](size_t i, const exits::ExitInput& input) {
        const auto stats = exits::exit_stats(backbone, view.exits[i], input, targets);
        sums.loss[view.stage.first_exit + i] += total(stats.loss);
        predictions[i] = stats.argmax;
      });
  if (view.stage.first_exit > 0) {
    const auto earlier = static_cast<int64_t>(view.stage.first_exit);
    const auto rows = view.link->receive({earlier, targets.numel()}, targets.options()).unbind(0);
    predictions.insert(predictions.begin(), rows.begin(), rows.end());
  }
  if (!view.stage.is_last) {
    if (!predictions.empty()) view.link->send(at::stack(predictions));
    return;
  }
  const at::Tensor normed = backbone.ranks.gather_tokens(
      model::rms_norm(stream, backbone.final_norm, backbone.config.rms_norm_eps));
  const auto final = kernels::linear_token_stats(normed.flatten(0, 1), backbone.head, targets.reshape({-1}),
                                                 /*temperature=*/1.0,
                                                 backbone.ranks.vocabulary_part(backbone.config.vocab_size));
  const at::Tensor counted = targets.reshape({-1}).ne(kernels::kIgnoreToken);
  for (size_t i = 0; i < predictions.size(); ++i)
    sums.agree[i] += predictions[i].eq(final.argmax).logical_and_(counted).sum().item<double>();
  sums.final_loss += total(final.loss);
  sums.tokens += counted.sum().item<double>();
}

std::optional<Evaluation> evaluate_stage(const StageView& view, const parallel::Ranks* ranks,
                                         const std::vector<int64_t>& layers, const data::BatchSource& source,
                                         int64_t sequences, int64_t micro_batch,
                                         const std::function<bool()>& stop) {
  const c10::AutoGradMode no_grad(false);
  const int64_t count = std::min(sequences, source.sequences().size());
  const int64_t replica = ranks ? ranks->data.rank() : 0, replicas = ranks ? ranks->data.size() : 1;
  Sums sums(layers.size());
  for (int64_t sample = replica * micro_batch; sample < count; sample += replicas * micro_batch) {
    if (stop()) return std::nullopt;
    add_micro_batch(view, source.at(sample, std::min(micro_batch, count - sample)), sums);
  }
  if (ranks) sums.merge(*ranks);
  const double tokens = sums.tokens;
  EE_CHECK(tokens > 0, "no token in {} sequences has a target", count);
  Evaluation result{.tokens = static_cast<int64_t>(tokens), .exits = {}, .final = {}};
  for (size_t i = 0; i < layers.size(); ++i)
    result.exits.push_back(
        {.layer = layers[i], .loss = sums.loss[i] / tokens, .agreement = sums.agree[i] / tokens});
  result.final = {.layer = view.backbone.config.layers, .loss = sums.final_loss / tokens, .agreement = 1.0};
  return result;
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
  const Stage stage{.last_layer = backbone.last_layer(),
                    .loaded_layers = backbone.last_layer(),
                    .exit_count = exits.size()};
  std::vector<int64_t> layers;
  for (const auto& exit : exits) layers.push_back(exit.spec.layer);
  return evaluate_stage({stage, backbone, exits, nullptr}, nullptr, layers, source, sequences, micro_batch,
                        stop);
}

std::optional<Evaluation> evaluate(Engine& engine, const std::vector<config::ExitSpec>& specs,
                                   const data::BatchSource& source, int64_t sequences, int64_t micro_batch,
                                   const std::function<bool()>& stop) {
  std::vector<int64_t> layers;
  for (const auto& spec : specs) layers.push_back(spec.layer);
  return evaluate_stage({engine.stage(), engine.backbone(), engine.exits(), engine.link()}, engine.ranks(),
                        layers, source, sequences, micro_batch, stop);
}

}  // namespace ee::train
