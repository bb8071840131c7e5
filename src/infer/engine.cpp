#include "ee/infer/engine.h"

#include <c10/core/InferenceMode.h>

#include <cmath>
#include <utility>

#include "ee/base/error.h"

namespace ee::infer {

namespace {

at::Tensor last_row(const at::Tensor& rows) {  // [1, seq, hidden] -> [1, 1, hidden]
  return rows.defined() ? rows.narrow(1, rows.size(1) - 1, 1) : rows;
}

model::LayerTrace last_row(const model::LayerTrace& trace) {
  return {last_row(trace.post_attention), last_row(trace.mlp_input), last_row(trace.output)};
}

Prediction make_prediction(int64_t exit, const at::Tensor& logits) {
  Prediction prediction{.exit = exit, .logits = logits.reshape({-1}).to(at::kCPU, at::kFloat)};
  prediction.token = prediction.logits.argmax().item<int64_t>();
  const double largest = prediction.logits[prediction.token].item<double>();
  prediction.confidence = std::exp(largest - at::logsumexp(prediction.logits, {0}).item<double>());
  return prediction;
}

}  // namespace

Engine::Engine(const model::Backbone& backbone, std::span<const exits::ExitHead> exits,
               const EngineOptions& options)
    : backbone_(backbone),
      exits_(exits),
      options_(options),
      exits_active_(!exits.empty() && (options.threshold < 1.0 || options.probe)),
      exit_caches_(exits.size()),
      pending_(exits.size()) {
  const config::ModelConfig& config = backbone.config;
  EE_CHECK(static_cast<int64_t>(backbone.layers.size()) == config.layers, "{} of {} layers are loaded",
           backbone.layers.size(), config.layers);
  EE_CHECK(options.capacity > 0 && options.capacity <= backbone.rope.cos.size(0),
           "capacity {} but the RoPE table has {} positions", options.capacity, backbone.rope.cos.size(0));
  const auto allocate = [&] {
    return model::LayerCache::allocate(config, /*batch=*/1, options.capacity, backbone.options(),
                                       backbone.ranks);
  };
  for (int64_t layer = 1; layer <= config.layers; ++layer) {
    caches_.push_back(allocate());
  }
  for (size_t i = 0; exits_active_ && i < exits.size(); ++i) {
    if (exits[i].spec.kind == config::ExitKind::layer) {
      exit_caches_[i] = allocate();
    }
  }
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
  const at::Tensor ids = at::tensor(at::ArrayRef<int64_t>(tokens.data(), tokens.size()), at::kLong)
                             .view({1, count})
                             .to(backbone_.device());
  length_ += count;
  return walk(backbone_.embed(ids)).value();
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
      if (said && !chosen && leaves(*said, options_.threshold)) {
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
    Prediction last = final_prediction(rows);
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

// Evaluates an exit on the last row. Only an exit that is a decoder layer sees all rows, also when nothing is
// to be predicted: they belong into its own KV cache.
std::optional<Prediction> Engine::visit_exit(size_t index, const model::LayerTrace& trace,
                                             const at::Tensor& rows, bool predict) {
  const exits::ExitHead& exit = exits_[index];
  const bool own_cache = exit.spec.kind == config::ExitKind::layer;
  if (!rows.defined() || (!predict && !own_cache)) {
    return std::nullopt;
  }
  const exits::ExitInput input =
      own_cache ? exits::ExitInput{rows, {}} : exits::exit_input(exit.spec, last_row(trace));
  const at::Tensor hidden = exit.forward(backbone_, input, own_cache ? &exit_caches_[index] : nullptr);
  if (!predict) {
    return std::nullopt;
  }
  Prediction prediction =
      make_prediction(static_cast<int64_t>(index), exit.logits(backbone_, last_row(hidden)));
  if (options_.probe) {
    probes_.push_back(prediction);
  }
  return prediction;
}

Prediction Engine::final_prediction(const at::Tensor& rows) const {
  const at::Tensor normed =
      model::rms_norm(last_row(rows), backbone_.final_norm, backbone_.config.rms_norm_eps);
  return make_prediction(kFinalLayer, backbone_.ranks.gather_vocabulary(at::linear(normed, backbone_.head),
                                                                        backbone_.config.vocab_size));
}

}  // namespace ee::infer
