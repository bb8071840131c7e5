// One decoding step of several sequences that are of different lengths: each gets one new row, and the
// weights are read once for all of them, which is what decoding costs.
#pragma once

#include <span>

#include "ee/model/backbone.h"

namespace ee::model {

// Where the new rows stand: made once for a step, used by all its layers. Row b belongs to sequence b of the
// caches, is its position lengths[b], and sees what is before it and itself.
struct StepRows {
  at::Tensor sequence;   // [batch] i64: 0..batch-1
  at::Tensor positions;  // [batch] i64: lengths
  RopeRows rope;         // of the positions
  at::Tensor visible;    // [batch, 1, 1, longest] bool
  int64_t longest = 0;   // largest position + 1: keys that a layer looks at

  StepRows(const Rope& angles, std::span<const int64_t> lengths);
};

// decoder_layer() for one new row of each sequence, x [batch, 1, hidden]. cache.length means nothing here:
// sequences have their own. Whatever the cache holds behind a sequence's end must be finite (it is masked).
LayerTrace decode_step(const config::ModelConfig& config, const LayerWeights& weights, const at::Tensor& x,
                       const StepRows& rows, LayerCache& cache, const parallel::TensorRanks& ranks = {});

}  // namespace ee::model
