#include "ee/kernels/linear_cross_entropy.h"

#include <ATen/ops/maximum.h>
#include <c10/core/GradMode.h>

#include <limits>
#include <utility>

#include "ee/base/error.h"
#include "linear_cross_entropy_cpu.h"
#include "softmax.h"

namespace ee::kernels {

namespace {

// Calls visit(first row, weight rows [n, hidden], logits [tokens, n] f32) for one chunk of the vocabulary
// after the other. f32 logits share one buffer: they are gone after the visit, which may change them.
template <typename Visit>
void for_each_chunk(const at::Tensor& hidden, const at::Tensor& weight, int64_t vocab_chunk, Visit&& visit) {
  const int64_t tokens = hidden.size(0), vocab = weight.size(0);
  at::Tensor buffer = at::empty({tokens * std::min(vocab_chunk, vocab)}, hidden.options());
  for (int64_t first = 0; first < vocab; first += vocab_chunk) {
    const int64_t rows = std::min(vocab_chunk, vocab - first);
    const at::Tensor chunk = weight.narrow(0, first, rows).to(hidden.scalar_type());
    at::Tensor logits = buffer.narrow(0, 0, tokens * rows).view({tokens, rows});
    at::mm_out(logits, hidden, chunk.t());
    visit(first, chunk, logits.to(at::kFloat));
  }
}

// Where each target lies in the chunk [first, first + rows): its column, clamped, and whether it is there.
std::pair<at::Tensor, at::Tensor> target_columns(const at::Tensor& targets, int64_t first, int64_t rows) {
  const at::Tensor column = targets.sub(first);
  return {column.clamp(0, rows - 1).unsqueeze(1), column.ge(0).logical_and(column.lt(rows))};
}

// The softmax by plain ATen operations, on any device.
Softmax chunked_forward(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                        const LinearCrossEntropyOptions& options) {
  const int64_t tokens = hidden.size(0);
  const double inverse = 1.0 / options.temperature;
  const at::TensorOptions floats = hidden.options().dtype(at::kFloat);
  Softmax out{.max = at::full({tokens}, -std::numeric_limits<float>::infinity(), floats),
              .sum = at::zeros({tokens}, floats),
              .log_sum = {},
              .target_logit = at::zeros({tokens}, floats),
              .argmax = at::zeros_like(targets)};
  for_each_chunk(
      hidden, weight, options.vocab_chunk, [&](int64_t first, const at::Tensor&, at::Tensor logits) {
        const auto [column, inside] = target_columns(targets, first, logits.size(1));
        out.target_logit = at::where(inside, logits.gather(1, column).squeeze(1), out.target_logit);
        const auto [chunk_max, chunk_argmax] = logits.max(1);
        out.argmax = at::where(chunk_max.gt(out.max), chunk_argmax.add(first), out.argmax);
        const at::Tensor max = at::maximum(out.max, chunk_max);
        out.sum.mul_(out.max.sub(max).mul_(inverse).exp_());
        out.sum.add_(logits.sub_(max.unsqueeze(1)).mul_(inverse).exp_().sum(1));
        out.max = max;
      });
  out.log_sum = out.sum.log();
  return out;
}

// Of the gradients of the logits before the dropped mass is spread, and of the rows that it is spread over.
struct DenseSums {
  at::Tensor gradients;  // [tokens] f32: over a token's gradients
  at::Tensor rows;       // [hidden] f32: over the rows of the weight
};

// Gradients of some tokens through a chunk of the dense logits' gradient at a time, on any device. All
// [tokens] tensors are those of the given hidden states; grad_hidden [tokens, hidden] f32 is added to.
DenseSums add_dense_gradients(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                              const Softmax& softmax, const at::Tensor& scale,
                              const LinearCrossEntropyOptions& options, at::Tensor grad_hidden,
                              const at::Tensor& weight_grad) {
  const double inverse = 1.0 / options.temperature;
  const at::Tensor max = softmax.max.unsqueeze(1), log_sum = softmax.log_sum.unsqueeze(1);
  const at::Tensor factor = scale.mul(inverse).unsqueeze(1);
  const at::Tensor target_gradient =
      softmax.target_logit.sub(softmax.max).mul_(inverse).sub_(softmax.log_sum).exp_().sub_(1).unsqueeze(1);
  DenseSums sums{.gradients = at::zeros_like(softmax.max),
                 .rows = at::zeros({hidden.size(1)}, grad_hidden.options())};
  for_each_chunk(
      hidden, weight, options.vocab_chunk, [&](int64_t first, const at::Tensor& rows, at::Tensor gradient) {
        gradient.sub_(max).mul_(inverse).sub_(log_sum).exp_();
        if (options.gradient_filter > 0) gradient.masked_fill_(gradient.lt(options.gradient_filter), 0);
        const auto [column, inside] = target_columns(targets, first, gradient.size(1));
        gradient.scatter_(1, column,
                          at::where(inside.unsqueeze(1), target_gradient, gradient.gather(1, column)));
        gradient.mul_(factor);
        sums.gradients.add_(gradient.sum(1));
        sums.rows.add_(rows.sum(0, false, at::kFloat));
        gradient = gradient.to(rows.scalar_type());
        if (rows.scalar_type() == at::kFloat)
          grad_hidden.addmm_(gradient, rows);
        else
          grad_hidden.add_(at::mm(gradient, rows));
        if (!weight_grad.defined()) return;
        at::Tensor grad_rows = weight_grad.narrow(0, first, rows.size(0));
        if (rows.scalar_type() == at::kFloat)
          grad_rows.addmm_(gradient.t(), hidden);
        else
          grad_rows.add_(at::mm(gradient.t(), hidden));
      });
  return sums;
}

bool is_real(at::ScalarType type) { return type == at::kFloat || type == at::kBFloat16; }

void check_part(const VocabularyPart& part, int64_t rows) {
  EE_CHECK(part.gather, "a part of the vocabulary without a way to the others");
  EE_CHECK(0 <= part.first && part.first + rows <= part.vocabulary, "rows {} to {} of a vocabulary of {}",
           part.first, part.first + rows, part.vocabulary);
}

void check_targets(const at::Tensor& targets, int64_t vocabulary) {
  const int64_t* target = targets.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < targets.size(0); ++i)
    EE_CHECK(target[i] == kIgnoreToken || (0 <= target[i] && target[i] < vocabulary),
             "target {} of token {} is outside the vocabulary of {}", target[i], i, vocabulary);
}

}  // namespace

struct LinearCrossEntropy::State {
  bool fused;                    // the CPU's vector path, otherwise plain ATen
  at::Tensor hidden;             // [tokens, hidden] as computed with: f32 on the CPU
  at::Tensor target_rows;        // [tokens]
  Softmax softmax;               // of the whole vocabulary
  fused::Candidates candidates;  // only if fused and filtered
};

LinearCrossEntropy::LinearCrossEntropy(at::Tensor hidden, at::Tensor weight, at::Tensor targets,
                                       LinearCrossEntropyOptions options)
    : hidden_(std::move(hidden)),
      weight_(std::move(weight)),
      targets_(std::move(targets)),
      options_(std::move(options)),
      state_(std::make_unique<State>()) {
  EE_CHECK(hidden_.dim() == 2 && weight_.dim() == 2 && hidden_.size(1) == weight_.size(1),
           "hidden states [{}] and embedding [{}] do not fit", fmt::join(hidden_.sizes(), ", "),
           fmt::join(weight_.sizes(), ", "));
  EE_CHECK(is_real(hidden_.scalar_type()) && is_real(weight_.scalar_type()), "dtypes {} and {}",
           c10::toString(hidden_.scalar_type()), c10::toString(weight_.scalar_type()));
  EE_CHECK(targets_.dim() == 1 && targets_.size(0) == hidden_.size(0) && targets_.scalar_type() == at::kLong,
           "targets must be i64 [{}]", hidden_.size(0));
  EE_CHECK(options_.temperature > 0 && options_.gradient_filter >= 0 && options_.gradient_filter < 1 &&
               options_.vocab_chunk > 0,
           "temperature {}, gradient filter {}, chunk {}", options_.temperature, options_.gradient_filter,
           options_.vocab_chunk);
  if (options_.part) check_part(*options_.part, weight_.size(0));
}

LinearCrossEntropy::~LinearCrossEntropy() = default;

const TokenStats& LinearCrossEntropy::forward() {
  const c10::NoGradGuard no_grad;
  State& state = *state_;
  // A CPU without bf16 arithmetic is many times slower in it; one with it gains nothing in the fused path.
  const bool cpu = hidden_.is_cpu();
  state.hidden = (cpu ? hidden_.detach().to(at::kFloat) : hidden_.detach()).contiguous();
  weight_ = weight_.detach().contiguous();
  targets_ = targets_.contiguous();
  state.fused = cpu && !options_.plain && hidden_.size(0) > 0 && fused::supported();
  if (cpu) check_targets(targets_, options_.part ? options_.part->vocabulary : weight_.size(0));
  state.target_rows = target_rows(targets_, weight_.size(0), options_.part);
  state.softmax = state.fused ? fused::forward(state.hidden, weight_, state.target_rows, options_.temperature,
                                               options_.gradient_filter, state.candidates)
                              : chunked_forward(state.hidden, weight_, state.target_rows, options_);
  if (options_.part) state.softmax = join_parts(state.softmax, *options_.part, options_.temperature);
  const Softmax& softmax = state.softmax;
  const at::Tensor loss =
      softmax.log_sum.sub(softmax.target_logit.sub(softmax.max).div_(options_.temperature));
  stats_ = {.loss = loss.masked_fill(targets_.eq(kIgnoreToken), 0),
            .confidence = softmax.log_sum.neg().exp_(),
            .argmax = softmax.argmax};
  return stats_;
}

at::Tensor LinearCrossEntropy::backward(const at::Tensor& token_scale, const at::Tensor& weight_grad) {
  const c10::NoGradGuard no_grad;
  EE_CHECK(stats_.loss.defined(), "backward() before forward()");
  EE_CHECK(token_scale.sizes() == targets_.sizes() && token_scale.scalar_type() == at::kFloat,
           "token scale must be f32 [{}]", targets_.size(0));
  EE_CHECK(!weight_grad.defined() || (weight_grad.sizes() == weight_.sizes() && weight_grad.is_contiguous() &&
                                      weight_grad.scalar_type() == at::kFloat),
           "weight gradient must be contiguous f32 [{}]", fmt::join(weight_.sizes(), ", "));
  const at::Tensor scale = token_scale.masked_fill(targets_.eq(kIgnoreToken), 0);
  at::Tensor grad_hidden = at::zeros(hidden_.sizes(), hidden_.options().dtype(at::kFloat));
  if (state_->fused && options_.gradient_filter > 0)
    backward_sparse(scale, grad_hidden, weight_grad);
  else
    backward_dense(scale, grad_hidden, weight_grad);
  return options_.part ? grad_hidden : grad_hidden.to(hidden_.scalar_type());
}

void LinearCrossEntropy::backward_dense(const at::Tensor& scale, const at::Tensor& grad_hidden,
                                        const at::Tensor& weight_grad) {
  const at::Tensor& hidden = state_->hidden;
  const DenseSums sums = add_dense_gradients(hidden, weight_, state_->target_rows, state_->softmax, scale,
                                             options_, grad_hidden, weight_grad);
  if (options_.gradient_filter == 0) return;
  const at::Tensor spread = dropped_share(sums.gradients, weight_.size(0), options_.part);
  grad_hidden.add_(at::outer(spread, sums.rows));
  if (weight_grad.defined()) weight_grad.add_(at::matmul(spread, hidden.to(at::kFloat)));
}

void LinearCrossEntropy::backward_sparse(const at::Tensor& scale, const at::Tensor& grad_hidden,
                                         const at::Tensor& weight_grad) {
  const Softmax& softmax = state_->softmax;
  const auto [sum, overflowed] =
      fused::settle(state_->candidates, softmax, state_->target_rows, scale, weight_.size(0),
                    options_.temperature, options_.gradient_filter);
  if (!overflowed.empty()) {
    const at::Tensor tokens = at::tensor(overflowed, targets_.options());
    const auto pick = [&](const at::Tensor& tensor) { return tensor.index_select(0, tokens); };
    const Softmax some{.max = pick(softmax.max),
                       .sum = {},
                       .log_sum = pick(softmax.log_sum),
                       .target_logit = pick(softmax.target_logit),
                       .argmax = {}};
    const at::Tensor grad = at::zeros({tokens.size(0), hidden_.size(1)}, grad_hidden.options());
    const DenseSums sums = add_dense_gradients(pick(state_->hidden), weight_, pick(state_->target_rows), some,
                                               pick(scale), options_, grad, weight_grad);
    grad_hidden.index_copy_(0, tokens, grad);
    sum.index_copy_(0, tokens, sums.gradients.to(at::kDouble));
  }
  const at::Tensor spread = dropped_share(sum, weight_.size(0), options_.part);
  fused::add_hidden_gradient(state_->candidates, spread, weight_, grad_hidden);
  if (weight_grad.defined())
    fused::add_weight_gradient(state_->candidates, spread, state_->hidden, weight_grad);
}

TokenStats linear_token_stats(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                              double temperature, const std::optional<VocabularyPart>& part) {
  return LinearCrossEntropy(hidden, weight, targets, {.temperature = temperature, .part = part}).forward();
}

}  // namespace ee::kernels
