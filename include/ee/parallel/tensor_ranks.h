// The ranks that split every matrix, and the four places where activations cross them (Megatron-LM, Shoeybi
// et al. 2019; sequence parallelism: Korthikanti et al. 2022). Default: one rank, every call returns its
// argument.
//
// Between blocks the residual stream is [batch, seq, hidden] on every rank, or with sequence parallelism
// [batch, seq / ranks, hidden]: each rank's own stretch of tokens. Inside a block every rank has all tokens
// and its own heads or MLP units.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "ee/comm/group.h"
#include "ee/kernels/linear_cross_entropy.h"
#include "ee/parallel/tensor_slice.h"

namespace ee::parallel {

class TensorRanks {
 public:
  TensorRanks() = default;
  TensorRanks(comm::Group group, bool sequence);

  int64_t rank() const { return group_ ? group_->rank() : 0; }
  int64_t size() const { return group_ ? group_->size() : 1; }
  bool sequence() const { return sequence_; }
  const std::optional<comm::Group>& group() const { return group_; }

  // What this rank owns of a tensor of these sizes.
  Slice own_slice(const config::ModelConfig& config, Split split, const std::vector<int64_t>& sizes) const {
    return slice_of(config, split, sizes, rank(), size());
  }

  // Into a block, in front of a column-split matrix: x of the stream -> [batch, seq, hidden]. Backward: sums
  // the ranks' gradients (and keeps this rank's tokens).
  at::Tensor enter(const at::Tensor& x) const;
  // Out of a block, behind a row-split matrix: this rank's part of the sum -> the stream. Backward: the whole
  // gradient to every rank.
  at::Tensor leave(const at::Tensor& partial) const;

  // The same two without autograd, for gradients that are computed by hand.
  at::Tensor gather_tokens(const at::Tensor& x) const;  // stream -> [batch, seq, hidden]
  at::Tensor own_tokens(const at::Tensor& x) const;     // and back: a view
  at::Tensor sum(const at::Tensor& partial) const;      // [batch, seq, hidden] parts -> the stream

  // The sum of all ranks' tensors on each of them, whatever their shape.
  at::Tensor sum_all(const at::Tensor& partial) const;

  // [..., this rank's part of `whole` columns, divided as `split` divides them] -> [..., whole] on every
  // rank.
  at::Tensor gather_columns(const at::Tensor& x, Split split, int64_t whole) const;
  at::Tensor gather_vocabulary(const at::Tensor& logits, int64_t vocabulary) const;

  // Of a vocabulary-split matrix [this rank's part, width]: the rows of ids [...] of the whole vocabulary,
  // [..., width], zeros where they are another rank's. Parts of a sum.
  at::Tensor vocabulary_rows(const at::Tensor& matrix, const at::Tensor& ids, int64_t vocabulary) const;
  // The way back: adds values [n, width] to the rows of ids [n] that are here.
  void add_to_vocabulary_rows(const at::Tensor& matrix, const at::Tensor& ids, const at::Tensor& values,
                              int64_t vocabulary) const;

  // Where the rows of a vocabulary-split matrix lie, and how ranks exchange per-token statistics. Nothing for
  // one rank.
  std::optional<kernels::VocabularyPart> vocabulary_part(int64_t vocabulary) const;

 private:
  struct OwnRows {
    at::Tensor row;   // like ids; 0 where it is another rank's
    at::Tensor here;  // bool
  };
  OwnRows own_rows(const at::Tensor& ids, int64_t vocabulary) const;

  std::optional<comm::Group> group_;  // only when there is more than one rank
  bool sequence_ = false;
};

}  // namespace ee::parallel
