#include "ee/eval/score.h"

#include <algorithm>

#include "ee/base/error.h"
#include "ee/infer/engine.h"
#include "ee/kernels/linear_cross_entropy.h"
#include "heads.h"

namespace ee::eval {

namespace {

at::Tensor checked_tokens(const infer::Model& model, std::span<const int64_t> tokens,
                          const std::string& origin) {  // [1, n]
  check_tokens(model.backbone.config, tokens, origin);
  return at::tensor(at::ArrayRef<int64_t>(tokens.data(), tokens.size()), at::kLong).view({1, -1});
}

// Results come exits first; files name the final layer first.
template <typename T>
void final_first(std::vector<T>& layers) {
  std::rotate(layers.begin(), layers.end() - 1, layers.end());
}

}  // namespace

void check_tokens(const config::ModelConfig& config, std::span<const int64_t> tokens,
                  const std::string& origin) {
  const auto count = static_cast<int64_t>(tokens.size());
  const config::TextLimit limit = config::text_limit(config);
  if (count < 1 || count > limit.tokens) {
    throw base::UserError("{} has {} tokens, expected 1 to {}, the model's {}", origin, count, limit.tokens,
                          limit.reason);
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= config.vocab_size) {
      throw base::UserError("{}: token {} (number {}) is outside the vocabulary of {} tokens", origin,
                            tokens[i], i, config.vocab_size);
    }
  }
}

std::vector<LayerScores> score_tokens(const infer::Model& model, std::span<const int64_t> tokens,
                                      const std::string& origin) {
  const at::Tensor ids = checked_tokens(model, tokens, origin);
  at::Tensor targets = ids.view({-1}).roll(-1);  // [n]: the next token
  targets[-1].fill_(kernels::kIgnoreToken);
  std::vector<LayerScores> layers;
  const SequenceBatch batch = without_targets(ids, origin);
  for_each_head(model, batch, [&](const HeadRows& head) {
    const kernels::TokenStats stats =
        kernels::linear_token_stats(head.rows, head.weight, targets, head.temperature);
    check_finite(model, batch, head.exit, stats.confidence);
    const float* loss = stats.loss.const_data_ptr<float>();
    const int64_t* argmax = stats.argmax.const_data_ptr<int64_t>();
    LayerScores scores{.name = model.exit_name(head.exit), .argmax = {argmax, argmax + tokens.size()}};
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      scores.logprobs.push_back(0.0 - static_cast<double>(loss[i]));
    }
    layers.push_back(std::move(scores));
  });
  final_first(layers);
  return layers;
}

void raw_logits(const infer::Model& model, std::span<const int64_t> tokens, const std::string& origin,
                const std::function<void(NamedLogits)>& visit) {
  const SequenceBatch batch = without_targets(checked_tokens(model, tokens, origin), origin);
  for_each_head(model, batch, [&](const HeadRows& head) {
    visit({model.exit_name(head.exit), at::linear(head.rows, head.weight).to(at::kFloat).contiguous()});
  });
}

}  // namespace ee::eval
