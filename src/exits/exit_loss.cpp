#include "ee/exits/exit_loss.h"

#include <ATen/ops/ne.h>
#include <c10/core/GradMode.h>

namespace ee::exits {
namespace {

// The output embedding in the dtype of the activations, outside autograd: LinearCrossEntropy has its own
// backward pass.
at::Tensor head_for(const ExitHead& exit, const at::Tensor& hidden) {
  return exit.head.detach().to(hidden.scalar_type());
}

// Where the gradient of the exit's own output embedding is added; undefined when the head is not trained.
at::Tensor head_gradient(ExitHead& exit) {
  if (!exit.head.requires_grad()) {
    return {};
  }
  if (!exit.head.grad().defined()) {
    exit.head.mutable_grad() = at::zeros(exit.head.sizes(), exit.head.options().dtype(at::kFloat));
  }
  return exit.head.grad();
}

// d(total) / d(loss of token i), [tokens] f32; 0 where the target is ignored.
at::Tensor token_scale(const at::Tensor& counted, double count, const kernels::TokenStats& stats,
                       const ExitLossOptions& options) {
  at::Tensor scale = counted.to(at::kFloat).mul_(options.scale / count);
  return options.token_weights == config::TokenWeights::confidence ? scale.mul_(stats.confidence) : scale;
}

// The same values as leaves that collect a gradient.
ExitInput as_leaves(const ExitInput& input) {
  const auto leaf = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.detach().set_requires_grad(true) : tensor;
  };
  return {.hidden = leaf(input.hidden), .mlp_input = leaf(input.mlp_input)};
}

at::Tensor gradient_of(const at::Tensor& leaf) { return leaf.defined() ? leaf.grad() : at::Tensor(); }

}  // namespace

double accumulate_exit_gradient(const model::Backbone& backbone, ExitHead& exit, const ExitInput& input,
                                const at::Tensor& targets, const ExitLossOptions& options,
                                ExitInput* input_gradient) {
  const ExitInput read = input_gradient ? as_leaves(input) : input;
  at::Tensor hidden;  // [batch, seq, hidden]
  {
    const c10::AutoGradMode record(true);
    hidden = exit.forward(backbone, read);
  }
  const c10::AutoGradMode no_grad(false);
  const parallel::TensorRanks& ranks = backbone.ranks;
  const at::Tensor all_tokens = ranks.gather_tokens(hidden.detach());  // [batch, seq, hidden]
  const at::Tensor rows = all_tokens.flatten(0, 1);                    // [tokens, hidden]
  const at::Tensor flat_targets = targets.reshape({-1});               // [tokens]
  const at::Tensor counted = flat_targets.ne(kernels::kIgnoreToken);
  const auto count = counted.sum().item<double>();
  if (count == 0) {
    return 0.0;  // nothing to learn from, and no mean to take
  }
  kernels::LinearCrossEntropy loss(rows, head_for(exit, rows), flat_targets,
                                   {.temperature = exit.spec.temperature,
                                    .gradient_filter = options.gradient_filter,
                                    .part = ranks.vocabulary_part(backbone.config.vocab_size)});
  const kernels::TokenStats& stats = loss.forward();
  if (hidden.requires_grad() || exit.head.requires_grad()) {
    const at::Tensor hidden_gradient =
        loss.backward(token_scale(counted, count, stats, options), head_gradient(exit));
    if (hidden.requires_grad()) {
      hidden.backward(ranks.sum(hidden_gradient.view_as(all_tokens)).to(hidden.scalar_type()));
    }
  }
  if (input_gradient)
    *input_gradient = {.hidden = gradient_of(read.hidden), .mlp_input = gradient_of(read.mlp_input)};
  return stats.loss.sum().item<double>() / count;
}

kernels::TokenStats exit_stats(const model::Backbone& backbone, const ExitHead& exit, const ExitInput& input,
                               const at::Tensor& targets) {
  const c10::AutoGradMode no_grad(false);
  const at::Tensor rows = backbone.ranks.gather_tokens(exit.forward(backbone, input)).flatten(0, 1);
  return kernels::linear_token_stats(rows, head_for(exit, rows), targets.reshape({-1}), exit.spec.temperature,
                                     backbone.ranks.vocabulary_part(backbone.config.vocab_size));
}

}  // namespace ee::exits
