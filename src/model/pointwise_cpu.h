// The CPU's loops behind pointwise.h: each one pass over memory, rows shared out to threads.
#pragma once

#include <ATen/core/Tensor.h>

#include "ee/model/rope.h"

namespace ee::model::fused {

// Whether the loops below take this tensor: on CPU, contiguous, f32 or bf16.
bool takes(const at::Tensor& tensor);

// In place; x [batch, seq, heads, head_dim]; `rope` of seq positions, contiguous.
void rotate(const at::Tensor& x, const RopeRows& rope);

// x [.., hidden] -> [.., hidden]; weight [hidden] in x's dtype.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// gate = silu(gate) * up, same shape and dtype.
void silu_times(const at::Tensor& gate, const at::Tensor& up);

}  // namespace ee::model::fused
