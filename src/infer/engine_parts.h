// What the engine of one process and that of a pipeline stage share.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "ee/infer/engine.h"

namespace ee::infer {

// Empty KV caches for one sequence of up to `capacity` tokens: of the backbone's layers, and of each exit
// that is a decoder layer (undefined for the others).
std::vector<model::LayerCache> layer_caches(const model::Backbone& backbone, int64_t capacity);
std::vector<model::LayerCache> exit_caches(const model::Backbone& backbone,
                                           std::span<const exits::ExitHead> exits, int64_t capacity);

// One rule an exit: those of the options, or their threshold for all. `exits` are all of the model.
std::vector<config::ExitRule> exit_rules(const EngineOptions& options,
                                         std::span<const exits::ExitHead> exits);
bool may_leave(const std::vector<config::ExitRule>& rules);  // at any exit

// How an exit is judged.
struct Judge {
  config::ExitPolicy policy;
  config::ExitRule rule;
  bool probe = false;    // the exit speaks even if its gate in front refuses; its score is then below 0
  int64_t position = 0;  // of the last row, for NotFinite
};

// What an exit says about the token behind the last row; nothing when its gate refuses to ask it. `trace`: of
// the layer that the exit listens to. `rows` [1, seq, hidden] (undefined: none): what leaves that layer, with
// rows in front that came to the exit earlier. Only an exit that is a decoder layer sees all rows, also when
// nothing is to be predicted: they belong into `own_cache`, its own KV cache. NotFinite: what it says is no
// number.
std::optional<Prediction> ask_exit(const model::Backbone& backbone, const exits::ExitHead& exit,
                                   int64_t index, const model::LayerTrace& trace, const at::Tensor& rows,
                                   model::LayerCache& own_cache, bool predict, const Judge& judge);

// What the model's own head says. `rows` [1, seq, hidden]: what leaves the last layer; `position` of the last
// one. NotFinite: it is no number.
Prediction ask_final_layer(const model::Backbone& backbone, const at::Tensor& rows, int64_t position);

// The same for several rows: [batch, seq, hidden] -> [batch * seq, vocab] f32 on the CPU.
at::Tensor final_logits(const model::Backbone& backbone, const at::Tensor& rows);

// [1, tokens] i64 on the backbone's device.
at::Tensor as_ids(const model::Backbone& backbone, std::span<const int64_t> tokens);

}  // namespace ee::infer
