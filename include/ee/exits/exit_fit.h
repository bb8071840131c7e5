// Which regression fits an exit: its linear last step against the final layer's normalized hidden state.
//
// Like the tuned lens (Belrose et al. 2023, arXiv 2303.08112) a translator is an affine map into the final
// layer's space. There it is trained by SGD on the divergence of the outputs, one matrix a layer; here it is
// solved in closed form on hidden states, together with the down projection of an mlp exit, and is where
// training starts.
#pragma once

#include <map>
#include <string>

#include "ee/exits/exit_head.h"
#include "ee/exits/ridge.h"

namespace ee::exits {

// One block of samples, f32.
struct FitRows {
  at::Tensor features;   // [rows, fit_features()]
  at::Tensor target;     // [rows, hidden]
  at::Tensor sequences;  // [rows] i64: which sequence of the batch each is of
};

// The regression of an exit has the intercept that a translator's bias is. Its features: the residual stream
// for a translator, the SwiGLU activations for an mlp exit, or both in this order.
int64_t fit_features(const config::ModelConfig& config, const config::ExitSpec& spec);
// Their penalties, [features] f64: activations beside the stream are many, and each says little; penalized
// more than the stream they need fewer tokens (measured on SmolLM2: 16 k tokens, agreement at layer 10 26.3 %
// in place of 24.0 %).
at::Tensor fit_penalty(const config::ModelConfig& config, const config::ExitSpec& spec);

// final_hidden [batch, seq, hidden], all tokens: the stream behind the model's last layer, in front of its
// norm. Target: what the exit's norm should see, the final hidden state at unit root mean square (or behind
// the final norm for an exit without a norm). Tokens without a target in `targets` [batch, seq] are left out.
// An mlp exit without a translator can only add to the stream as it is: there each token is weighted so that
// the same error is measured. Tensor ranks share the tokens: each gets its part of the rows with all
// features, so sums over ranks are sums over tokens.
FitRows fit_rows(const model::Backbone& backbone, const ExitHead& exit, const ExitInput& input,
                 const at::Tensor& final_hidden, const at::Tensor& targets);

// Whether fitted_tensors() has the tensor whose name ends so.
bool is_fitted(const config::ExitSpec& spec, const std::string& part);

// The exit's whole tensors as solved, f32, by the end of their names ("translator.weight",
// "mlp.down_proj.weight"). A low-rank translator gets the best diagonal plus low-rank part of the solution
// (reduced-rank regression). Behind a translator an own norm gets the final norm's weight times the root of
// the explained share: a prediction is shorter than what it predicts, a norm would stretch it and make the
// exit too sure of itself.
std::map<std::string, at::Tensor> fitted_tensors(const model::Backbone& backbone,
                                                 const config::ExitSpec& spec, const RidgeSolution& solution);

}  // namespace ee::exits
