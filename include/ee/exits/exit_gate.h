// An exit's gate foretells whether the final layer will agree with the exit: a logistic regression on the
// hidden state in front of the output embedding. Asked there it can save the embedding, which is most of an
// exit's cost; asked behind it, it also knows the two largest probabilities.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace ee::exits {

// ExitHead::gate is [2, hidden + 3] f32: row 0 in front of the output embedding, row 1 behind it. Columns:
// gate_input(), log of the largest probability, its distance to the second one's, 1. Row 0 has zeros in the
// two in the middle.
inline constexpr int64_t kGateExtras = 3;

// What a gate reads of the hidden state in front of the output embedding [rows, hidden]: f32, root mean
// square 1.
at::Tensor gate_input(const at::Tensor& exit_hidden);

// The gate's probability that the final layer agrees, [rows] f32. `input`: of gate_input().
at::Tensor gate_before(const at::Tensor& gate, const at::Tensor& input);
// log_top, log_margin [rows] f32: log p1 and log p1 - log p2 at the exit's temperature.
at::Tensor gate_after(const at::Tensor& gate, const at::Tensor& input, const at::Tensor& log_top,
                      const at::Tensor& log_margin);

}  // namespace ee::exits
