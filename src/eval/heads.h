// One forward pass over whole sequences, head by head.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ee/eval/evaluate.h"
#include "ee/infer/model.h"
#include "ee/infer/not_finite.h"

namespace ee::eval {

// What an output embedding reads, for one exit or the final layer.
struct HeadRows {
  int64_t exit;        // index into model.exits, or infer::kFinalLayer
  at::Tensor rows;     // [scored, hidden]
  at::Tensor weight;   // [vocab, hidden], in the dtype of rows
  double temperature;  // divides the logits
};

struct SequenceBatch {
  at::Tensor tokens;        // [batch, seq] i64
  at::Tensor scored;        // [scored] i64: which of the batch * seq tokens have a target, ascending
  at::Tensor targets;       // [scored] i64
  std::string origin = {};  // for messages: what the one sequence is; empty: they are known by their number
  size_t first = 0;         // of the first sequence, counted from 0
};

// Every token is scored, and none has a target.
SequenceBatch without_targets(const at::Tensor& tokens, const std::string& origin);

// The exits in order, at last the final layer; one alive at a time.
void for_each_head(const infer::Model& model, const SequenceBatch& batch,
                   const std::function<void(const HeadRows&)>& visit);

// infer::NotFinite naming head, sequence and position unless all of `numbers` [scored], one made of a scored
// token's logits (or by the exit's gate), are finite. The position is the first one that is not; a layer's
// NaN at a later token may have come there, because attention multiplies what is masked by 0.
void check_finite(const infer::Model& model, const SequenceBatch& batch, int64_t exit,
                  const at::Tensor& numbers, infer::NotFinite::Part part = infer::NotFinite::Part::logits);

// Calls visit(batch, number of sequences done) for a batch of sequences after the other, in order; a batch is
// small enough for one forward pass.
void for_each_batch(const Sequences& sequences,
                    const std::function<void(const SequenceBatch& batch, int64_t done)>& visit);

}  // namespace ee::eval
