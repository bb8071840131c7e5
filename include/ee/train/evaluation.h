// Exits against held-out text and against the final layer.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "ee/data/packing.h"
#include "ee/exits/exit_head.h"
#include "ee/model/backbone.h"
#include "ee/train/engine.h"

namespace ee::train {

struct ExitScore {
  int64_t layer = 0;
  double loss = 0;       // mean over tokens, nats
  double agreement = 0;  // share of tokens whose most likely next token is also the final layer's
  double perplexity() const;
};

struct Evaluation {
  int64_t tokens = 0;
  std::vector<ExitScore> exits;
  ExitScore final;  // the backbone's own head; agreement 1

  double mean_loss() const;  // over the exits: what the best checkpoint is chosen by
};

// The first min(sequences, all) samples of `source`, `micro_batch` at a time; at least one token of them has
// a target. Means are over all of these tokens. The backbone must have all its layers. Nothing when `stop`
// answered true between two micro-batches.
std::optional<Evaluation> evaluate(const model::Backbone& backbone, const std::vector<exits::ExitHead>& exits,
                                   const data::BatchSource& source, int64_t sequences, int64_t micro_batch,
                                   const std::function<bool()>& stop);

// The same by all ranks of a run together; `specs` are the exits of all stages. Every rank gets the result,
// and waits for it.
std::optional<Evaluation> evaluate(Engine& engine, const std::vector<config::ExitSpec>& specs,
                                   const data::BatchSource& source, int64_t sequences, int64_t micro_batch,
                                   const std::function<bool()>& stop);

}  // namespace ee::train
