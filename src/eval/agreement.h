// Every exit's opinion on every token of a text, against the final layer's.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "ee/eval/evaluate.h"
#include "ee/eval/quality.h"
#include "ee/infer/model.h"
#include "temperature.h"

namespace ee::eval {

// All [tokens that are scored], f32 but for agree.
struct ExitOpinions {
  at::Tensor confidence_before;        // largest probability at another temperature, see read_opinions()
  at::Tensor log_top;                  // log of the largest probability
  at::Tensor log_margin;               // its distance to that of the second largest
  at::Tensor agree;                    // u8
  at::Tensor input;                    // [tokens, hidden] of exits::gate_input(), if asked for
  at::Tensor gate_before, gate_after;  // if the exit has a gate
};

struct Opinions {
  std::vector<int64_t> tokens;  // of each sequence
  std::vector<ExitOpinions> exits;

  int64_t first_token(int64_t sequence) const;  // of all
};

int64_t scored_tokens(const Sequence& sequence);

// `before`: each exit's temperature for confidence_before.
Opinions read_opinions(const infer::Model& model, const Sequences& sequences,
                       const std::vector<double>& before, bool keep_input,
                       const std::function<void(int64_t done)>& progress);

// Of each exit, against the final layer's argmax.
std::vector<LikelihoodCurve> read_likelihoods(const infer::Model& model, const Sequences& sequences,
                                              const std::function<void(int64_t done)>& progress);

// The sequences begin..begin + count of the opinions as one policy sees them.
ScoreTable score_table(const infer::Model& model, const Opinions& opinions, config::ExitPolicy policy,
                       int64_t begin, int64_t count);

template <typename Number>
std::span<const Number> numbers(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<Number>(), static_cast<size_t>(tensor.numel())};
}

}  // namespace ee::eval
