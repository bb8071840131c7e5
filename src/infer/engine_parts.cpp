#include "engine_parts.h"

#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ee/base/error.h"
#include "ee/exits/exit_gate.h"
#include "ee/infer/not_finite.h"

namespace ee::infer {

namespace {

at::Tensor last_row(const at::Tensor& rows) {  // [1, seq, hidden] -> [1, 1, hidden]
  return rows.defined() ? rows.narrow(1, rows.size(1) - 1, 1) : rows;
}

model::LayerTrace last_row(const model::LayerTrace& trace) {
  return {last_row(trace.post_attention), last_row(trace.mlp_input), last_row(trace.output)};
}

// `layer`: as NotFinite's.
Prediction make_prediction(int64_t exit, const at::Tensor& logits, int64_t layer, int64_t position) {
  Prediction prediction{.exit = exit, .logits = logits.reshape({-1}).to(at::kCPU, at::kFloat)};
  prediction.token = prediction.logits.argmax().item<int64_t>();
  const double largest = prediction.logits[prediction.token].item<double>();  // NaN, if any logit is
  if (!std::isfinite(largest)) {
    throw NotFinite(NotFinite::Part::logits, layer, position);
  }
  prediction.confidence = std::exp(largest - at::logsumexp(prediction.logits, {0}).item<double>());
  prediction.score = prediction.confidence;
  return prediction;
}

// What the gate says behind the output embedding. `input`: of exits::gate_input(), one row.
double gate_score(const at::Tensor& gate, const at::Tensor& input, const Prediction& prediction) {
  const at::Tensor top = std::get<0>(prediction.logits.topk(2));
  const double log_top = std::log(std::max(prediction.confidence, std::numeric_limits<double>::min()));
  const double log_margin = top[0].item<double>() - top[1].item<double>();
  const auto number = [&](double value) { return at::full({1}, value, input.options()); };
  return exits::gate_after(gate, input, number(log_top), number(log_margin)).item<double>();
}

model::LayerCache allocate(const model::Backbone& backbone, int64_t capacity) {
  return model::LayerCache::allocate(backbone.config, /*batch=*/1, capacity, backbone.options(),
                                     backbone.ranks);
}

}  // namespace

std::vector<model::LayerCache> layer_caches(const model::Backbone& backbone, int64_t capacity) {
  EE_CHECK(capacity > 0 && capacity <= backbone.config.max_positions,
           "capacity {} but the model has {} positions", capacity, backbone.config.max_positions);
  std::vector<model::LayerCache> caches;
  for (size_t i = 0; i < backbone.layers.size(); ++i) {
    caches.push_back(allocate(backbone, capacity));
  }
  return caches;
}

std::vector<model::LayerCache> exit_caches(const model::Backbone& backbone,
                                           std::span<const exits::ExitHead> exits, int64_t capacity) {
  std::vector<model::LayerCache> caches(exits.size());
  for (size_t i = 0; i < exits.size(); ++i) {
    if (exits[i].spec.kind == config::ExitKind::layer) {
      caches[i] = allocate(backbone, capacity);
    }
  }
  return caches;
}

std::vector<config::ExitRule> exit_rules(const EngineOptions& options,
                                         std::span<const exits::ExitHead> exits) {
  std::vector<config::ExitRule> rules = options.rules;
  if (rules.empty()) {
    for (const exits::ExitHead& exit : exits) {
      rules.push_back({.layer = exit.spec.layer, .threshold = options.threshold});
    }
  }
  EE_CHECK(rules.size() == exits.size(), "{} rules for {} exits", rules.size(), exits.size());
  return rules;
}

bool may_leave(const std::vector<config::ExitRule>& rules) {
  return std::ranges::any_of(rules, [](const config::ExitRule& rule) { return rule.threshold < 1.0; });
}

std::optional<Prediction> ask_exit(const model::Backbone& backbone, const exits::ExitHead& exit,
                                   int64_t index, const model::LayerTrace& trace, const at::Tensor& rows,
                                   model::LayerCache& own_cache, bool predict, const Judge& judge) {
  const bool caches = exit.spec.kind == config::ExitKind::layer;
  if (!rows.defined() || (!predict && !caches)) {
    return std::nullopt;
  }
  const exits::ExitInput from =
      caches ? exits::ExitInput{rows, {}} : exits::exit_input(exit.spec, last_row(trace));
  const at::Tensor hidden = exit.forward(backbone, from, caches ? &own_cache : nullptr);
  if (!predict) {
    return std::nullopt;
  }
  const at::Tensor row = last_row(hidden);
  const auto speak = [&] {
    return make_prediction(index, exit.logits(backbone, row), exit.spec.layer, judge.position);
  };
  if (judge.policy == config::ExitPolicy::confidence) {
    return speak();
  }
  const at::Tensor input = exits::gate_input(row.flatten(0, 1));
  const double forecast = judge.rule.ask > 0 ? exits::gate_before(exit.gate, input).item<double>() : 1.0;
  const bool refused = forecast < judge.rule.ask;
  if (refused && !judge.probe) {
    return std::nullopt;
  }
  Prediction prediction = speak();
  prediction.score = refused ? -1.0 : gate_score(exit.gate, input, prediction);
  if (std::isnan(forecast) || std::isnan(prediction.score)) {  // otherwise the exit would be silent for ever
    throw NotFinite(NotFinite::Part::gate, exit.spec.layer, judge.position);
  }
  return prediction;
}

Prediction ask_final_layer(const model::Backbone& backbone, const at::Tensor& rows, int64_t position) {
  return make_prediction(kFinalLayer, final_logits(backbone, last_row(rows)), NotFinite::kModelsHead,
                         position);
}

at::Tensor final_logits(const model::Backbone& backbone, const at::Tensor& rows) {
  const at::Tensor normed = model::rms_norm(rows, backbone.final_norm, backbone.config.rms_norm_eps);
  return backbone.ranks.gather_vocabulary(at::linear(normed, backbone.head), backbone.config.vocab_size)
      .flatten(0, 1)
      .to(at::kCPU, at::kFloat);
}

at::Tensor as_ids(const model::Backbone& backbone, std::span<const int64_t> tokens) {
  return at::tensor(at::ArrayRef<int64_t>(tokens.data(), tokens.size()), at::kLong)
      .view({1, static_cast<int64_t>(tokens.size())})
      .to(backbone.device());
}

}  // namespace ee::infer
