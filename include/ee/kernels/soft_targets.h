// What a distillation loss needs of the teacher's distribution p = softmax(logits / temperature), in place of
// p.
//
// The divergence's gradient to a student's logits is (q - p) / temperature. Behind the student's output
// embedding W that is (sum_v q(v) W_v - sum_v p(v) W_v) / temperature: all that the hidden state ever sees of
// the teacher is one expected row of W a token. Where teacher and students share W it is computed once for
// all of them, and learning from the whole distribution costs what cross entropy costs.
#pragma once

#include <ATen/core/Tensor.h>

#include "ee/kernels/linear_cross_entropy.h"

namespace ee::kernels {

struct ExpectedRows {
  at::Tensor excess;  // [tokens, hidden] f32: sum_v p(v) W_v - W_target; with a part this part's share, which
                      // the caller adds up
  at::Tensor loss;    // [tokens] f32: -log p(target)
};

// For teacher and student with the same weight. Arguments as LinearCrossEntropy's, every token with a target.
// With a gradient filter small probabilities are spread evenly.
ExpectedRows expected_rows(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                           const LinearCrossEntropyOptions& options);

struct TeacherLogits {
  at::Tensor hidden;   // [tokens, hidden]
  at::Tensor weight;   // [vocab or part of it, hidden]
  at::Tensor log_sum;  // [tokens] f32: log of the sum of exp(logits / temperature), of the whole vocabulary
  double temperature = 1.0;
};

// sum_v p(v) W_v, [tokens, hidden] f32 (a part's share), for a student with an output embedding of its own,
// [vocab or the same part, hidden], whose logits are those of student_hidden [tokens, hidden]. Adds -sum_i
// token_scale[i] * p_i(v) * student_hidden[i] to row v of weight_grad (f32, the weight's shape) if that is
// defined. Exact; recomputes the teacher's logits by chunk.
at::Tensor expected_rows(const TeacherLogits& teacher, const at::Tensor& student_weight,
                         const at::Tensor& student_hidden, const at::Tensor& token_scale,
                         const at::Tensor& weight_grad, int64_t vocab_chunk = 4096);

}  // namespace ee::kernels
