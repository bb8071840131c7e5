// Early-exit decoding of one sequence (EE-LLM section 4). A token that left early owes the KV entries of the
// layers behind its exit; its hidden state waits there and goes on together with the next token that goes
// deeper.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ee/config/exit_spec.h"
#include "ee/exits/exit_head.h"
#include "ee/model/backbone.h"

namespace ee::infer {

inline constexpr int64_t kFinalLayer = -1;  // Prediction::exit of the model's own head

// What one exit, or the final layer, says about the next token.
struct Prediction {
  int64_t exit = kFinalLayer;  // index into the exits the engine was given
  int64_t token = 0;           // the most probable one; the smallest id among equals
  double confidence = 0.0;     // its probability
  double score = 0.0;          // what the policy compares with the threshold
  at::Tensor logits;           // [vocab] f32 on the CPU, divided by the exit's temperature
};

// The exit policy: leave when the exit is at least that sure. At threshold 1 no exit ever fires, not even
// when a score rounds to 1: that is the full model, exactly.
inline bool leaves(const Prediction& prediction, double threshold) {
  return threshold < 1.0 && prediction.score >= threshold;
}

struct EngineOptions {
  int64_t capacity = 0;    // positions in the KV cache: prompt and generated tokens, as many as the model has
  double threshold = 1.0;  // in [0, 1]
  // What an exit's score is. With gate every exit has one.
  config::ExitPolicy policy = config::ExitPolicy::confidence;
  std::vector<config::ExitRule> rules = {};  // one an exit, in place of `threshold`; empty: that for all
  bool probe = false;  // every token runs through all layers and every exit is evaluated (same decisions)
};

class Engine {
 public:
  // `backbone` and `exits` (ascending by layer) must outlive the engine.
  Engine(const model::Backbone& backbone, std::span<const exits::ExitHead> exits,
         const EngineOptions& options);

  // Appends tokens (a prompt, or the token just chosen) and predicts what follows the last of them. The
  // tokens leave together at the first exit where the last one does. At least one; length() + tokens.size()
  // must not exceed the capacity. NotFinite: what an exit that was asked, or the final layer, says is no
  // number.
  Prediction step(std::span<const int64_t> tokens);

  // Brings the KV cache of every layer up to date: equal, to rounding, to a full forward pass over all
  // tokens.
  void flush();

  int64_t length() const { return length_; }  // tokens so far
  int64_t pending() const;                    // rows that owe deeper KV entries
  const model::LayerCache& cache(int64_t layer) const { return caches_.at(static_cast<size_t>(layer - 1)); }

  // With options.probe: what each exit (in order) and at last the final layer said in the last step().
  const std::vector<Prediction>& probes() const { return probes_; }

 private:
  std::optional<Prediction> walk(at::Tensor rows);
  at::Tensor take_pending(size_t exit, const at::Tensor& rows);
  std::optional<Prediction> visit_exit(size_t index, const model::LayerTrace& trace, const at::Tensor& rows,
                                       bool predict);

  const model::Backbone& backbone_;
  std::span<const exits::ExitHead> exits_;
  EngineOptions options_;
  std::vector<config::ExitRule> rules_;           // one an exit
  bool exits_active_;                             // false at threshold 1: exits cost nothing then
  std::vector<model::LayerCache> caches_;         // of layers 1..n
  std::vector<model::LayerCache> exit_caches_;    // per exit; allocated for kind layer only
  std::vector<std::vector<at::Tensor>> pending_;  // per exit: hidden states [1, rows, hidden], in order
  std::vector<Prediction> probes_;
  int64_t length_ = 0;
};

}  // namespace ee::infer
