// One micro-batch through one pipeline stage: the same for training and evaluation.
#pragma once

#include <functional>
#include <vector>

#include "ee/data/packing.h"
#include "ee/exits/exit_head.h"
#include "ee/parallel/stage_link.h"
#include "ee/train/stages.h"

namespace ee::train {

class ExitInputs;

struct StageView {
  const Stage& stage;
  const model::Backbone& backbone;
  const std::vector<exits::ExitHead>& exits;  // of the stage
  parallel::StageLink* link;                  // null: the only stage
  const ExitInputs* stored = nullptr;         // of the batch's sequences, instead of running the layers
};

// Of the stream of tokens [batch, seq] on this tensor rank.
std::vector<int64_t> stream_sizes(const model::Backbone& backbone, const at::Tensor& tokens);

// Embeds the batch or receives its stream, runs the stage's layers up to `depth` without autograd, and calls
// `visit` for each of its exits with index and input. In front of another stage the stream is handed on
// first, and the exits' inputs wait so long; otherwise each exit is visited as soon as its layer has run.
// Returns the stream behind the last layer. With stored inputs no layer runs, nothing crosses stages, and
// nothing is returned.
at::Tensor walk_stage(const StageView& view, const data::Batch& batch, int64_t depth,
                      const std::function<void(size_t exit, const exits::ExitInput& input)>& visit);

}  // namespace ee::train
