// The elementwise steps of a layer. Without autograd on CPU each is one pass over memory; elsewhere, and
// where gradients are needed, plain ATen operations that give the same numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include "ee/model/rope.h"

namespace ee::model {

// True where the result of an operation on these tensors would be recorded by autograd.
bool needs_autograd(std::initializer_list<at::Tensor> tensors);

// Rotates pairs (i, i + head_dim/2) of every head by its position's angle. x [batch, seq, heads, head_dim];
// `rope` of its seq positions. Without autograd x's own memory is rotated and returned.
at::Tensor rotate(at::Tensor x, const RopeRows& rope);

// silu(gate) * up, both [.., intermediate]. Without autograd the result takes gate's memory.
at::Tensor silu_times(at::Tensor gate, const at::Tensor& up);

// branch + residual. Without autograd the result takes branch's memory; the residual stays as it is.
at::Tensor add_residual(at::Tensor branch, const at::Tensor& residual);

}  // namespace ee::model
