// One forward pass over whole sequences, head by head.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "ee/infer/model.h"

namespace ee::eval {

// What an output embedding reads, for one exit or the final layer.
struct HeadRows {
  int64_t exit;        // index into model.exits, or infer::kFinalLayer
  at::Tensor rows;     // [batch * seq, hidden]
  at::Tensor weight;   // [vocab, hidden], in the dtype of rows
  double temperature;  // divides the logits
};

// tokens [batch, seq] i64. The exits in order, at last the final layer; one alive at a time.
void for_each_head(const infer::Model& model, const at::Tensor& tokens,
                   const std::function<void(const HeadRows&)>& visit);

// Calls visit(tokens [batch, length + 1] i64, number of sequences done) for a batch of sequences after the
// other, in order; a batch is small enough for one forward pass. All sequences are equally long.
void for_each_batch(const std::vector<std::vector<int64_t>>& sequences,
                    const std::function<void(const at::Tensor& tokens, int64_t done)>& visit);

}  // namespace ee::eval
