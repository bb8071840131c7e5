// The fused path of LinearCrossEntropy on a CPU: logits live in registers and the first-level cache only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "softmax_tile.h"

namespace ee::kernels::fused {

// True if this build and this CPU have the vector instructions.
bool supported();

// What passes the gradient filter: one list for each token and part of the vocabulary, ascending in
// vocabulary rows. There is one part, unless there are too few tokens for all threads to share.
struct Candidates {
  // Room in a list. One that overflows marks its token for the dense backward, so memory stays below 32 KiB a
  // token (and is only touched as far as it is filled) whatever the distribution.
  static constexpr int32_t kCapacity = 4096;
  static constexpr int32_t kOverflow = -1;  // as a count
  static constexpr int64_t kStride = kCapacity + 1;

  int64_t tokens = 0, parts = 0;
  std::vector<int32_t> count;  // [parts, tokens]
  std::unique_ptr<tile::Entry[]>
      entries;  // [parts, tokens, kStride]: vocabulary row and logit, later gradient

  std::vector<float> spread;  // [tokens], after settle(): gradient added to every logit

  tile::Entry* list(int64_t part, int64_t token) const {
    return entries.get() + (part * tokens + token) * kStride;
  }
};

// All [tokens] f32 but argmax i64; logits before the division by the temperature.
struct Softmax {
  at::Tensor max, log_sum;  // log_sum: log of the sum of exp((logit - max) / temperature)
  at::Tensor target_logit;  // 0 where the target is kIgnoreToken
  at::Tensor argmax;
};

// hidden [tokens, hidden] f32, weight [vocab, hidden] f32 or bf16, targets [tokens] i64, all contiguous.
// Fills `candidates` (vocabulary row, logit) with a superset of what passes `filter`, unless that is 0.
Softmax forward(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                double temperature, double filter, Candidates& candidates);

// Turns candidate logits into gradients of the logits: what is below `filter` goes, the target always is
// there, and the mass that went is spread over the vocabulary, so that a token's gradients sum to 0 as the
// exact ones do. scale [tokens] f32: d loss / d (loss of the token); tokens with 0 get empty lists. Returns
// the tokens whose lists overflowed; their lists are empty now.
std::vector<int64_t> settle(Candidates& candidates, const Softmax& softmax, const at::Tensor& targets,
                            const at::Tensor& scale, int64_t vocab, double temperature, double filter);

// grad_hidden [tokens, hidden] f32 += gradients x weight.
void add_hidden_gradient(const Candidates& gradients, const at::Tensor& weight,
                         const at::Tensor& grad_hidden);

// weight_grad [vocab, hidden] f32 += gradients^T x hidden.
void add_weight_gradient(const Candidates& gradients, const at::Tensor& hidden,
                         const at::Tensor& weight_grad);

}  // namespace ee::kernels::fused
