#include "ee/infer/engine.h"

#include <c10/core/InferenceMode.h>

#include <utility>

#include "ee/base/error.h"
#include "engine_parts.h"

namespace ee::infer {

Engine::Engine(const model::Backbone& backbone, std::span<const exits::ExitHead> exits,
               const EngineOptions& options)
    : backbone_(backbone),
      exits_(exits),
      options_(options),
      rules_(exit_rules(options, exits)),
      exits_active_(!exits.empty() && (may_leave(rules_) || options.probe)),
      caches_(layer_caches(backbone, options.capacity)),
      exit_caches_(exits_active_ ? exit_caches(backbone, exits, options.capacity)
                                 : std::vector<model::LayerCache>()),
      pending_(exits.size()) {
  EE_CHECK(static_cast<int64_t>(backbone.layers.size()) == backbone.config.layers,
           "{} of {} layers are loaded", backbone.layers.size(), backbone.config.layers);
}

int64_t Engine::pending() const {
  int64_t rows = 0;
  for (const auto& waiting : pending_) {
    for (const at::Tensor& part : waiting) {
      rows += part.size(1);
    }
  }
  return rows;
}

Prediction Engine::step(std::span<const int64_t> tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  EE_CHECK(count > 0 && length_ + count <= options_.capacity, "{} + {} tokens, capacity {}", length_, count,
           options_.capacity);
  const c10::InferenceMode no_autograd;
  probes_.clear();
  length_ += count;
  return walk(backbone_.embed(as_ids(backbone_, tokens))).value();
}

void Engine::flush() {
  const c10::InferenceMode no_autograd;
  walk({});
}

// Takes new rows [1, seq, hidden] at depth 0 (undefined: none, only catch up) through the layers until the
// last one leaves. Rows that wait at an exit join those that pass it, in front of them: positions stay in
// order because whatever waits at an exit came before whatever waits at an earlier one.
std::optional<Prediction> Engine::walk(at::Tensor rows) {
  const bool predict = rows.defined();
  const int64_t layers = backbone_.config.layers;
  std::optional<Prediction> chosen;
  model::LayerTrace trace;
  trace.output = rows;
  size_t exit = exits_active_ ? 0 : exits_.size();
  for (int64_t depth = 0; depth <= layers; ++depth) {
    if (depth > 0 && rows.defined()) {
      trace = model::decoder_layer(backbone_.config, backbone_.layer(depth), rows, backbone_.rope,
                                   &caches_[static_cast<size_t>(depth - 1)], backbone_.ranks);
      rows = trace.output;
    }
    for (; exit < exits_.size() && exits_[exit].spec.depth() == depth; ++exit) {
      const std::optional<Prediction> said = visit_exit(exit, trace, rows, predict);
      if (said && !chosen && leaves(*said, rules_[exit].threshold)) {
        chosen = said;
      }
      if (chosen && !options_.probe) {
        if (depth < layers) {  // behind the last layer nothing is owed
          pending_[exit].push_back(rows);
        }
        return chosen;
      }
      rows = take_pending(exit, rows);
    }
  }
  if (predict) {
    Prediction last = ask_final_layer(backbone_, rows, length_ - 1);
    if (options_.probe) {
      probes_.push_back(last);
    }
    return chosen ? chosen : last;
  }
  return std::nullopt;
}

// The rows that waited at this exit with `rows` behind them.
at::Tensor Engine::take_pending(size_t exit, const at::Tensor& rows) {
  std::vector<at::Tensor> parts = std::exchange(pending_[exit], {});
  if (rows.defined()) {
    parts.push_back(rows);
  }
  return parts.size() > 1 ? at::cat(parts, 1) : parts.empty() ? rows : parts.front();
}

std::optional<Prediction> Engine::visit_exit(size_t index, const model::LayerTrace& trace,
                                             const at::Tensor& rows, bool predict) {
  const bool ask = predict && (options_.probe || rules_[index].threshold < 1.0);
  auto said = ask_exit(
      backbone_, exits_[index], static_cast<int64_t>(index), trace, rows, exit_caches_[index], ask,
      {.policy = options_.policy, .rule = rules_[index], .probe = options_.probe, .position = length_ - 1});
  if (said && options_.probe) {
    probes_.push_back(*said);
  }
  return said;
}

}  // namespace ee::infer
