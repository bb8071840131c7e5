#include "ee/exits/exit_loss.h"

#include <ATen/ops/ne.h>
#include <c10/core/GradMode.h>

#include <optional>

#include "ee/base/error.h"
#include "ee/kernels/soft_targets.h"

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

// The same values as leaves that collect a gradient.
ExitInput as_leaves(const ExitInput& input) {
  const auto leaf = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.detach().set_requires_grad(true) : tensor;
  };
  return {.hidden = leaf(input.hidden), .mlp_input = leaf(input.mlp_input)};
}

at::Tensor gradient_of(const at::Tensor& leaf) { return leaf.defined() ? leaf.grad() : at::Tensor(); }

// The terms of one exit's loss on one micro-batch, as gradients of its hidden states.
class LossTerms {
 public:
  // rows [tokens, hidden]: all tokens, in front of the output embedding. targets [tokens].
  LossTerms(const model::Backbone& backbone, ExitHead& exit, at::Tensor rows, const at::Tensor& targets,
            const ExitLossOptions& options, const Teacher* teacher)
      : backbone_(backbone),
        exit_(exit),
        rows_(std::move(rows)),
        counted_(targets.ne(kernels::kIgnoreToken)),
        targets_(targets),
        options_(options),
        teacher_(teacher) {
    EE_CHECK(teacher_ || !options_.loss.needs_teacher(), "a loss without its teacher");
  }

  bool nothing_counts() const { return !counted_.any().item<bool>(); }

  // The sum of the cross entropy. Must come first.
  double forward() {
    own_.emplace(rows_, head_for(exit_, rows_), targets_, kernel_options(exit_.spec.temperature));
    const kernels::TokenStats& stats = own_->forward();
    scale_ = counted_.to(at::kFloat).mul_(options_.scale);
    if (options_.token_weights == config::TokenWeights::confidence) scale_.mul_(stats.confidence);
    return stats.loss.sum(at::kDouble).item<double>();
  }

  // d(total) / d rows, [tokens, hidden], as this tensor rank's part of a sum. Adds to the head's gradient.
  at::Tensor backward() {
    const config::LossOptions& loss = options_.loss;
    const bool same_temperature = loss.kl_temperature == exit_.spec.temperature;
    const double kl = loss.kl * loss.kl_temperature * loss.kl_temperature;
    const double own = loss.cross_entropy + (same_temperature ? kl : 0);
    at::Tensor gradient = own > 0 ? own_->backward(scale_.mul(own), head_gradient(exit_))
                                  : at::zeros(rows_.sizes(), rows_.options());
    if (kl > 0 && !same_temperature) {
      kernels::LinearCrossEntropy other(rows_, head_for(exit_, rows_), targets_,
                                        kernel_options(loss.kl_temperature));
      other.forward();
      gradient = gradient.add(other.backward(scale_.mul(kl), head_gradient(exit_)));
    }
    if (kl > 0) gradient = gradient.add(from_target_to_teacher(kl));
    if (loss.hidden > 0 && backbone_.ranks.rank() == 0) gradient = gradient.add(towards_hidden());
    return gradient;
  }

 private:
  kernels::LinearCrossEntropyOptions kernel_options(double temperature) const {
    return {.temperature = temperature,
            .gradient_filter = options_.gradient_filter,
            .part = backbone_.ranks.vocabulary_part(backbone_.config.vocab_size)};
  }

  // What is missing from the gradient of cross entropy to that of the divergence: the teacher's expected row
  // of the output embedding in place of the target's.
  at::Tensor from_target_to_teacher(double factor) {
    const double temperature = options_.loss.kl_temperature;
    const at::Tensor scale = scale_.mul(factor / temperature);
    at::Tensor difference;
    if (exit_.spec.head == config::HeadKind::shared) {
      difference = backbone_.ranks.rank() == 0 ? teacher_->target_rows.sub(teacher_->expected_rows)
                                               : at::zeros_like(teacher_->target_rows);
    } else {
      difference = own_head_difference(scale);
    }
    return difference.mul_(scale.unsqueeze(1)).to(rows_.scalar_type());
  }

  // This tensor rank's part. The head's gradient gets the same exchange: target out, teacher in.
  at::Tensor own_head_difference(const at::Tensor& scale) {
    const parallel::TensorRanks& ranks = backbone_.ranks;
    const int64_t vocabulary = backbone_.config.vocab_size;
    const at::Tensor head = exit_.head.detach(), ids = targets_.clamp_min(0), gradient = head_gradient(exit_);
    if (gradient.defined())
      ranks.add_to_vocabulary_rows(gradient, ids, rows_.to(at::kFloat).mul(scale.unsqueeze(1)), vocabulary);
    const at::Tensor expected = kernels::expected_rows({.hidden = teacher_->hidden,
                                                        .weight = backbone_.head,
                                                        .log_sum = teacher_->log_sum,
                                                        .temperature = options_.loss.kl_temperature},
                                                       head, rows_, scale, gradient);
    return ranks.vocabulary_rows(head, ids, vocabulary).to(at::kFloat).sub(expected);
  }

  at::Tensor towards_hidden() const {
    const double factor = 2.0 * options_.loss.hidden / static_cast<double>(rows_.size(1));
    return rows_.sub(teacher_->hidden).mul_(scale_.mul(factor).unsqueeze(1).to(rows_.scalar_type()));
  }

  const model::Backbone& backbone_;
  ExitHead& exit_;
  at::Tensor rows_, counted_;
  at::Tensor targets_;
  const ExitLossOptions& options_;
  const Teacher* teacher_;
  std::optional<kernels::LinearCrossEntropy> own_;
  at::Tensor
      scale_;  // [tokens] f32: d(total) / d(a term of token i) for factor 1; 0 where the target is ignored
};

}  // namespace

double accumulate_exit_gradient(const model::Backbone& backbone, ExitHead& exit, const ExitInput& input,
                                const at::Tensor& targets, const ExitLossOptions& options,
                                const Teacher* teacher, ExitInput* input_gradient) {
  const ExitInput read = input_gradient ? as_leaves(input) : input;
  at::Tensor hidden;  // [batch, seq, hidden]
  {
    const c10::AutoGradMode record(true);
    hidden = exit.forward(backbone, read);
  }
  const c10::AutoGradMode no_grad(false);
  const parallel::TensorRanks& ranks = backbone.ranks;
  const at::Tensor all_tokens = ranks.gather_tokens(hidden.detach());  // [batch, seq, hidden]
  LossTerms terms(backbone, exit, all_tokens.flatten(0, 1), targets.reshape({-1}), options, teacher);
  if (terms.nothing_counts()) return 0.0;  // nothing to learn from
  const double loss = terms.forward();
  if (hidden.requires_grad() || exit.head.requires_grad()) {
    const at::Tensor hidden_gradient = terms.backward();
    if (hidden.requires_grad())
      hidden.backward(ranks.sum(hidden_gradient.view_as(all_tokens)).to(hidden.scalar_type()));
  }
  if (input_gradient)
    *input_gradient = {.hidden = gradient_of(read.hidden), .mlp_input = gradient_of(read.mlp_input)};
  return loss;
}

kernels::TokenStats exit_stats(const model::Backbone& backbone, const ExitHead& exit, const ExitInput& input,
                               const at::Tensor& targets) {
  const c10::AutoGradMode no_grad(false);
  const at::Tensor rows = backbone.ranks.gather_tokens(exit.forward(backbone, input)).flatten(0, 1);
  return kernels::linear_token_stats(rows, head_for(exit, rows), targets.reshape({-1}), exit.spec.temperature,
                                     backbone.ranks.vocabulary_part(backbone.config.vocab_size));
}

}  // namespace ee::exits
