// Fitting an exit's gate (exits/exit_gate.h): two ridge logistic regressions by Newton's method.
#pragma once

#include <ATen/core/Tensor.h>

namespace ee::eval {

// Weights [features] f64 of the logistic regression of `labels` [rows] (0 or 1) on `features` [rows,
// features], the last of which is 1 and is not penalized. `ridge`: added to the mean curvature of each
// standardized feature.
at::Tensor fit_logistic(const at::Tensor& features, const at::Tensor& labels, double ridge);

// Mean negative log likelihood of the labels.
double logistic_loss(const at::Tensor& features, const at::Tensor& labels, const at::Tensor& weights);

// A gate [2, hidden + 3] f32. input [rows, hidden] of exits::gate_input(); log_top, log_margin, agree [rows].
// The ridge is the one that does best on the last quarter of the rows when fitted on the others.
at::Tensor fit_gate(const at::Tensor& input, const at::Tensor& log_top, const at::Tensor& log_margin,
                    const at::Tensor& agree);

}  // namespace ee::eval
