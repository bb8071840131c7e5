// Log probabilities of given tokens at the final layer and at every exit.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ee/infer/model.h"

namespace ee::eval {

struct LayerScores {
  std::string name;  // "final", "10", ...: the final layer first, then the exits
  std::vector<double> logprobs =
      {};  // [n - 1]: log p(token i | tokens before) for i = 1..n-1, temperature included
  std::vector<int64_t> argmax = {};  // [n]: the most probable token behind token i
};

// UserError naming `origin`: not 1..text_limit() tokens, one outside the vocabulary.
void check_tokens(const config::ModelConfig& config, std::span<const int64_t> tokens,
                  const std::string& origin);

// One sequence. UserError naming `origin`: as check_tokens(); infer::NotFinite: what a head says is no
// number.
std::vector<LayerScores> score_tokens(const infer::Model& model, std::span<const int64_t> tokens,
                                      const std::string& origin);

struct NamedLogits {
  std::string name;
  at::Tensor logits;  // [tokens, vocab] f32, contiguous: what the output embedding gave, NOT divided by the
                      // exit's temperature
};

// Calls `visit` for every exit in order and then for the final layer, computed one after the other: it may
// let go of each before the next.
void raw_logits(const infer::Model& model, std::span<const int64_t> tokens, const std::string& origin,
                const std::function<void(NamedLogits)>& visit);

}  // namespace ee::eval
