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
#include <memory>

namespace ee::kernels {

// Per-token results of one forward pass; all [tokens], on the device of the hidden states.
struct TokenStats {
  at::Tensor loss;        // f32: -log p(target); 0 where the target is kIgnoreToken
  at::Tensor confidence;  // f32: largest probability
  at::Tensor argmax;      // i64: its token
};

inline constexpr int64_t kIgnoreToken = -100;  // a target that takes no part in the loss

struct LinearCrossEntropyOptions {
  double temperature = 1.0;  // logits are divided by it
  double gradient_filter =
      0.0;                     // in [0, 1): smaller probabilities leave the gradient; the target's never does
  int64_t vocab_chunk = 4096;  // columns of logits alive at a time, where they are not in registers
  bool plain = false;          // on a CPU, too, only the ATen operations that other devices use
};

// One exit's loss on one micro-batch: forward(), then at most one backward().
class LinearCrossEntropy {
 public:
  // hidden [tokens, hidden], weight [vocab, hidden], both f32 or bf16 on one device; targets [tokens] i64.
  // Holds references to all three until destroyed.
  LinearCrossEntropy(at::Tensor hidden, at::Tensor weight, at::Tensor targets,
                     LinearCrossEntropyOptions options);
  ~LinearCrossEntropy();

  const TokenStats& forward();

  // d(sum_i token_scale[i] * loss[i]) / d hidden -> [tokens, hidden] in hidden's dtype; token_scale [tokens]
  // f32. If weight_grad is defined ([vocab, hidden] f32), the gradient of the weight is added to it.
  at::Tensor backward(const at::Tensor& token_scale, const at::Tensor& weight_grad = {});

 private:
  struct State;  // what forward() leaves for backward()

  void backward_filtered(const at::Tensor& scale, const at::Tensor& grad_hidden,
                         const at::Tensor& weight_grad);

  at::Tensor hidden_, weight_, targets_;
  LinearCrossEntropyOptions options_;
  TokenStats stats_;
  std::unique_ptr<State> state_;
};

// Statistics only, no gradient: the same numbers as LinearCrossEntropy::forward().
TokenStats linear_token_stats(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                              double temperature = 1.0);

}  // namespace ee::kernels
