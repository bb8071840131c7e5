// Output embedding + softmax + cross entropy, forward and backward, without ever holding the [tokens, vocab]
// logits.
//
// The vocabulary is walked in chunks with a running log-sum-exp. For the backward pass the gradient of the
// logits is softmax - onehot. Its entries below `gradient_filter` are dropped (Wijmans et al. 2024, "Cut Your
// Losses", section 4.3): a trained model's softmax has a few hundred entries above 2^-14, so the product with
// the embedding becomes a sparse gather that is a small part of the dense one. Unlike there, a token's
// dropped mass is then spread evenly over the vocabulary, so that the gradients of its logits sum to 0 like
// the exact ones: output embeddings share a large mean, and on linear-lens exits of SmolLM2 this takes the
// gradient's error at 2^-14 from 5 % to 2 % (20 % to 4 % for a flat exit, entropy 7.8) at no cost.
// gradient_filter = 0 is exact and recomputes the logits by chunk.
//
// Logits are f32. On a CPU with AVX2 (or NEON) they never leave the first-level cache, bf16 inputs are
// widened on the way, and results are the same bits from run to run.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

namespace ee::kernels {

// Per-token results of one forward pass; all [tokens], on the device of the hidden states.
struct TokenStats {
  at::Tensor loss;        // f32: -log p(target); 0 where the target is kIgnoreToken
  at::Tensor confidence;  // f32: largest probability
  at::Tensor argmax;      // i64: its token
};

inline constexpr int64_t kIgnoreToken = -100;  // a target that takes no part in the loss

// Where a weight's rows lie in the whole vocabulary, when ranks hold a part each (vocabulary-parallel cross
// entropy, Shoeybi et al. 2019, "Megatron-LM", section 3). Parts follow one another in the order of the
// ranks; they may differ in size, and one may be empty.
struct VocabularyPart {
  int64_t first = 0;       // the vocabulary's row that is the weight's row 0
  int64_t vocabulary = 0;  // rows of all parts together
  // [n, ...] of every rank -> [ranks, n, ...], the same on all of them, in the order of the ranks. Contiguous
  // f32 or i64 tensors on the device of the hidden states; called in the same order on all ranks, whatever
  // their data: [3, tokens] f32 and [tokens] i64 by forward(), [tokens] f32 by backward() if there is a
  // gradient filter.
  std::function<at::Tensor(const at::Tensor&)> gather = {};
};

struct LinearCrossEntropyOptions {
  double temperature = 1.0;  // logits are divided by it
  double gradient_filter =
      0.0;                     // in [0, 1): smaller probabilities leave the gradient; the target's never does
  int64_t vocab_chunk = 4096;  // columns of logits alive at a time, where they are not in registers
  bool plain = false;          // on a CPU, too, only the ATen operations that other devices use
  std::optional<VocabularyPart> part = {};  // absent: the weight is the whole vocabulary
};

// One exit's loss on one micro-batch: forward(), then at most one backward(). With a VocabularyPart all ranks
// of its group do the same calls with the same hidden states, targets (ids of the whole vocabulary) and
// options.
class LinearCrossEntropy {
 public:
  // hidden [tokens, hidden], weight [vocab or part of it, hidden], both f32 or bf16 on one device; targets
  // [tokens] i64. Holds references to all three until destroyed.
  LinearCrossEntropy(at::Tensor hidden, at::Tensor weight, at::Tensor targets,
                     LinearCrossEntropyOptions options);
  ~LinearCrossEntropy();

  // With a part: of the whole vocabulary, the same bits on all ranks.
  const TokenStats& forward();

  // d(sum_i token_scale[i] * loss[i]) / d hidden -> [tokens, hidden] in hidden's dtype; token_scale [tokens]
  // f32. If weight_grad is defined (f32, the weight's shape), the gradient of the weight is added to it.
  // With a part: this part's share of d / d hidden, in f32 whatever hidden's dtype; the caller adds up the
  // shares of all ranks. token_scale is the same on all of them, and weight_grad, of the part's rows, is
  // complete.
  at::Tensor backward(const at::Tensor& token_scale, const at::Tensor& weight_grad = {});

 private:
  struct State;  // what forward() leaves for backward()

  void backward_sparse(const at::Tensor& scale, const at::Tensor& grad_hidden, const at::Tensor& weight_grad);
  void backward_dense(const at::Tensor& scale, const at::Tensor& grad_hidden, const at::Tensor& weight_grad);

  at::Tensor hidden_, weight_, targets_;
  LinearCrossEntropyOptions options_;
  TokenStats stats_;
  std::unique_ptr<State> state_;
};

// Statistics only, no gradient: the same numbers as LinearCrossEntropy::forward().
TokenStats linear_token_stats(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                              double temperature = 1.0, const std::optional<VocabularyPart>& part = {});

}  // namespace ee::kernels
