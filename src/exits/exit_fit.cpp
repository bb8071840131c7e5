#include "ee/exits/exit_fit.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/floor_divide.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "ee/base/error.h"
#include "ee/kernels/linear_cross_entropy.h"

namespace ee::exits {

namespace {

bool is_mlp(const config::ExitSpec& spec) { return spec.kind == config::ExitKind::mlp; }
bool fits_norm(const config::ExitSpec& spec) {
  return spec.has_translator() && spec.norm == config::NormKind::own;
}

// The rows with a target, [rows] i64, that this tensor rank adds to the sums.
at::Tensor own_rows(const at::Tensor& targets, const parallel::TensorRanks& ranks) {
  const at::Tensor rows = targets.reshape({-1}).ne(kernels::kIgnoreToken).nonzero().squeeze(1);
  return rows.slice(0, ranks.rank(), rows.size(0), ranks.size());
}

// [batch, seq, inner] of the whole MLP on all tokens.
at::Tensor activations(const model::Backbone& backbone, const ExitHead& exit, const ExitInput& input) {
  const at::Tensor x = input.mlp_input.to(exit.mlp.gate.weight.scalar_type());  // masters may be f32
  const at::Tensor own = model::mlp_activations(exit.mlp, x, backbone.ranks);
  return backbone.ranks.gather_columns(own, parallel::Split::rows, backbone.config.intermediate_size);
}

struct LowRank {
  at::Tensor scale, down, up;  // [features], [rank, features], [outputs, rank]
};

// The best diag(scale) + up down for weight [n, n] where features have the second moments `variance`: the
// rest beside the diagonal keeps the directions in which it changes the output most.
LowRank truncate(const at::Tensor& weight, const at::Tensor& variance, int64_t rank) {
  const at::Tensor scale = weight.diagonal().clone();
  const at::Tensor rest = weight.sub(at::diag(scale));
  const auto [values, vectors] = at::linalg_eigh(at::mm(at::mm(rest, variance), rest.t()));  // ascending
  const int64_t outputs = weight.size(0), kept = std::min(rank, outputs);
  at::Tensor up = at::zeros({outputs, rank}, weight.options());
  up.narrow(1, 0, kept).copy_(vectors.narrow(1, outputs - kept, kept));
  return {.scale = scale, .down = at::mm(up.t(), rest), .up = up};
}

}  // namespace

int64_t fit_features(const config::ModelConfig& config, const config::ExitSpec& spec) {
  return (spec.has_translator() ? config.hidden_size : 0) + (is_mlp(spec) ? config.intermediate_size : 0);
}

at::Tensor fit_penalty(const config::ModelConfig& config, const config::ExitSpec& spec) {
  constexpr double kActivations = 8;
  at::Tensor penalty = at::ones({fit_features(config, spec)}, at::kDouble);
  if (spec.has_translator()) penalty.slice(0, config.hidden_size).fill_(kActivations);
  return penalty;
}

FitRows fit_rows(const model::Backbone& backbone, const ExitHead& exit, const ExitInput& input,
                 const at::Tensor& final_hidden, const at::Tensor& targets) {
  const c10::AutoGradMode no_grad(false);
  const parallel::TensorRanks& ranks = backbone.ranks;
  const double eps = backbone.config.rms_norm_eps;
  const at::Tensor own = own_rows(targets, ranks);
  const auto rows = [&](const at::Tensor& x) { return x.flatten(0, 1).index_select(0, own).to(at::kFloat); };
  const at::Tensor final = rows(final_hidden);
  at::Tensor target = exit.norm.defined()
                          ? model::rms_norm(final, at::ones_like(backbone.final_norm, at::kFloat), eps)
                          : model::rms_norm(final, backbone.final_norm.to(at::kFloat), eps);
  std::vector<at::Tensor> features;
  if (exit.spec.has_translator()) features.push_back(rows(ranks.gather_tokens(exit.stream(backbone, input))));
  if (is_mlp(exit.spec)) features.push_back(rows(activations(backbone, exit, input)));
  if (!exit.spec.has_translator()) {  // x + down(a) against the final hidden state itself, over its scale
    at::Tensor fixed = rows(ranks.gather_tokens(input.hidden));  // [rows, hidden]
    if (exit.mlp.down.bias.defined()) fixed = fixed.add(exit.mlp.down.bias.to(at::kFloat));
    if (exit.norm.defined()) {
      const at::Tensor inverse = final.square().mean(1, /*keepdim=*/true).add(eps).rsqrt();  // [rows, 1]
      fixed = fixed.mul(inverse);
      features[0] = features[0].mul(inverse);
    }
    target = target.sub(fixed);
  }
  return {.features = features.size() == 1 ? features[0] : at::cat(features, 1),
          .target = target,
          .sequences = own.floor_divide(targets.size(1))};
}

bool is_fitted(const config::ExitSpec& spec, const std::string& part) {
  if (part.starts_with("translator.")) return true;
  if (part == "norm.weight") return fits_norm(spec);
  return is_mlp(spec) &&
         (part == "mlp.down_proj.weight" || (part == "mlp.down_proj.bias" && spec.has_translator()));
}

std::map<std::string, at::Tensor> fitted_tensors(const model::Backbone& backbone,
                                                 const config::ExitSpec& spec,
                                                 const RidgeSolution& solution) {
  const config::ModelConfig& config = backbone.config;
  const int64_t hidden = config.hidden_size;
  std::map<std::string, at::Tensor> tensors;
  if (spec.translator == config::TranslatorKind::full) {
    tensors["translator.weight"] = solution.weight.narrow(1, 0, hidden);
    tensors["translator.bias"] = solution.bias;
  } else if (spec.translator == config::TranslatorKind::low_rank) {
    const auto [scale, down, up] =
        truncate(solution.weight.narrow(1, 0, hidden),
                 solution.feature_variance.narrow(0, 0, hidden).narrow(1, 0, hidden), spec.translator_rank);
    tensors["translator.scale"] = scale;
    tensors["translator.down.weight"] = down;
    tensors["translator.up.weight"] = up;
    tensors["translator.up.bias"] = solution.bias;
  }
  if (is_mlp(spec)) {
    const int64_t inner = config.intermediate_size;
    tensors["mlp.down_proj.weight"] = solution.weight.narrow(1, solution.weight.size(1) - inner, inner);
    if (config.mlp_bias && spec.has_translator())
      tensors["mlp.down_proj.bias"] = at::zeros({hidden}, solution.bias.options());
  }
  if (fits_norm(spec))
    tensors["norm.weight"] = backbone.final_norm.mul(std::sqrt(std::max(0.0, 1.0 - solution.unexplained)));
  for (auto& [name, tensor] : tensors) tensor = tensor.to(at::kFloat).contiguous();
  return tensors;
}

}  // namespace ee::exits
