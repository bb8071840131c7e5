// The fused path of LinearCrossEntropy on a CPU: logits live in registers and the first-level cache only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "softmax.h"
#include "softmax_tile.h"

namespace ee::kernels::fused {

// True if this build and this CPU have the vector instructions.
bool supported();

// What passes the gradient filter: one list for each token and slice of the vocabulary, ascending in
// vocabulary rows. There is one slice, unless there are too few tokens for all threads to share.
struct Candidates {
  // Room in a list. One that overflows marks its token for the dense backward, so memory stays below 32 KiB a
  // token (and is only touched as far as it is filled) whatever the distribution.
  static constexpr int32_t kCapacity = 4096;
  static constexpr int32_t kOverflow = -1;  // as a count
  static constexpr int64_t kStride = kCapacity + 1;

  int64_t tokens = 0, slices = 0;
  std::vector<int32_t> count;  // [slices, tokens]
  std::unique_ptr<tile::Entry[]>
      entries;  // [slices, tokens, kStride]: vocabulary row and logit, later gradient

  tile::Entry* list(int64_t slice, int64_t token) const {
    return entries.get() + (slice * tokens + token) * kStride;
  }
};

// hidden [tokens, hidden] f32, weight [rows, hidden] f32 or bf16, targets [tokens] i64 as of target_rows(),
// all contiguous. Fills `candidates` (vocabulary row, logit) with a superset of what passes `filter`, unless
// that is 0.
Softmax forward(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                double temperature, double filter, Candidates& candidates);

struct Settled {
  at::Tensor sum;                   // [tokens] f64: over a token's gradients
  std::vector<int64_t> overflowed;  // tokens whose lists overflowed; their lists are empty now
};

// Turns candidate logits into gradients of the logits: what is below `filter` goes, the target always is
// there if it is among the weight's `rows`. The softmax is that of the whole vocabulary. scale [tokens] f32:
// d loss / d (loss of the token); tokens with 0 get empty lists.
Settled settle(Candidates& candidates, const Softmax& softmax, const at::Tensor& targets,
               const at::Tensor& scale, int64_t rows, double temperature, double filter);

// grad_hidden [tokens, hidden] f32 += gradients x weight; spread [tokens] f32 is the gradient that every
// logit of a token gets on top.
void add_hidden_gradient(const Candidates& gradients, const at::Tensor& spread, const at::Tensor& weight,
                         const at::Tensor& grad_hidden);

// weight_grad [rows, hidden] f32 += gradients^T x hidden.
void add_weight_gradient(const Candidates& gradients, const at::Tensor& spread, const at::Tensor& hidden,
                         const at::Tensor& weight_grad);

}  // namespace ee::kernels::fused
