// The next token from logits: greedy, or random with temperature, top-k, top-p and min-p, in that order, as
// Hugging Face's generate() does.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace ee::infer {

struct SamplingOptions {
  double temperature = 0.0;  // divides the logits; 0: always the most probable token
  int64_t top_k = 0;         // only the k most probable tokens; 0: all
  double top_p = 1.0;        // only the fewest most probable tokens that together reach this probability
  double min_p = 0.0;        // only tokens at least this fraction as probable as the most probable one
  uint64_t seed = 0;         // the same seed gives the same text on every machine with equal logits
};

// UserError naming the option: temperature < 0, top_k < 0, top_p outside (0, 1], min_p outside [0, 1].
void check_sampling(const SamplingOptions& options);

class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);

  // logits [vocab], f32, on the CPU; -inf: never. `most_probable` is their argmax, whose logit is finite:
  // what greedy decoding returns.
  int64_t sample(const at::Tensor& logits, int64_t most_probable);

  // In place of sample() for a token that another process chooses: afterwards both have the same random
  // numbers ahead.
  void skip();

 private:
  double uniform();  // [0, 1), 53 bits

  SamplingOptions options_;
  uint64_t state_;  // of a splitmix64 sequence
};

}  // namespace ee::infer
