// Answers to many prompts by the full model, several at a time. A sequence that ends makes room for the next
// prompt at once, so the batch stays full until the prompts run out.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ee/infer/generate.h"
#include "ee/model/backbone.h"

namespace ee::infer {

struct BatchOptions {
  int64_t batch = 16;             // sequences that are decoded together
  int64_t max_new_tokens = 128;   // an answer of so many tokens ends there
  SamplingOptions sampling = {};  // the seed is each request's own
};

// UserError naming the option: batch or max_new_tokens < 1, sampling options out of range.
void check_batch_options(const BatchOptions& options);

struct BatchRequest {
  std::vector<int64_t> prompt;  // at least one token; with max_new_tokens at most the model's positions
  uint64_t seed = 0;  // of its sampling: an answer depends neither on the batch nor on its neighbours
  std::string name =
      {};  // for messages, as "prompts.txt, prompt 3"; empty: "prompt 3" by its place in the list
};

struct BatchAnswer {
  std::vector<int64_t> tokens;  // an end token is the last one
  FinishReason finish = FinishReason::length;
};

// Calls `on_answer` once for each request, as they end. The tokens are those of generate() at threshold 1, up
// to rounding: a matrix product of several rows may differ in the last bits. `ends`: tokens that end an
// answer. UserError naming the request: no request at all, a prompt without tokens; NotFinite: what the model
// says is no number.
void generate_batch(const model::Backbone& backbone, std::span<const BatchRequest> requests,
                    std::span<const int64_t> ends, const BatchOptions& options,
                    const std::function<void(size_t request, BatchAnswer answer)>& on_answer);

}  // namespace ee::infer
