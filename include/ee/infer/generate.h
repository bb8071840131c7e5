// From prompt tokens to text: the loop around the engine, with sampling, end-of-text tokens and stop strings.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ee/infer/engine.h"
#include "ee/infer/model.h"
#include "ee/infer/sampler.h"

namespace ee::infer {

struct GenerateOptions {
  int64_t max_new_tokens = 128;
  int64_t context = 0;     // prompt and new tokens may not exceed it; 0: what config::text_limit() allows
  double threshold = 1.0;  // confidence from which an exit makes the token; 1: the full model
  config::ExitPolicy policy = config::ExitPolicy::confidence;  // as EngineOptions
  std::vector<config::ExitRule> rules = {};                    // as EngineOptions
  SamplingOptions sampling = {};
  std::vector<std::string> stop = {};  // the text ends in front of the first of these
  bool probe = false;                  // keep what every exit says at each position; nothing is skipped then
};

// What can be checked before a model is loaded. UserError naming the option: threshold outside [0, 1],
// max_new_tokens < 1, sampling options out of range, an empty stop string.
void check_options(const GenerateOptions& options);

// UserError: as check_options(); context beyond the model's positions, an empty prompt, a token outside the
// vocabulary, prompt and new tokens longer than the context.
void check_generate(const config::ModelConfig& config, std::span<const int64_t> prompt,
                    const GenerateOptions& options);

struct ExitOpinion {
  int64_t exit;  // as Prediction::exit
  int64_t token;
  double confidence;
};

struct GeneratedToken {
  int64_t id = 0;
  int64_t exit = kFinalLayer;  // that made it
  double confidence = 0.0;     // the exit's largest probability (not always that of `id` when sampling)
  double milliseconds = 0.0;   // of the engine step and the choice
  std::vector<ExitOpinion> opinions = {};  // with GenerateOptions::probe: every exit, then the final layer
};

enum class FinishReason {
  eos,
  stop,
  length,
  error,  // what comes next is no number, see Generation::error
};
std::string_view to_string(FinishReason reason);

struct Generation {
  std::string text;                    // without special tokens and stop string; valid UTF-8
  std::vector<GeneratedToken> tokens;  // an end-of-text token is the last one
  FinishReason finish = FinishReason::length;
  std::string error;  // with FinishReason::error: the message of NotFinite; the rest is what was made before
  int64_t prompt_tokens = 0;

  double prompt_milliseconds() const { return tokens.empty() ? 0.0 : tokens.front().milliseconds; }
  double decode_tokens_per_second() const;  // of all tokens but the first; 0 if there is only one
};

struct GenerateListener {
  // A token was chosen; its text may come later, or never.
  std::function<void(const GeneratedToken& token)> on_token;
  // Whole characters that are certain to be part of the text, and which token (index) ended them.
  std::function<void(size_t token, std::string_view text)> on_text;
};

// Appends tokens to what came before and gives the next one, all of GeneratedToken but the time.
using NextToken = std::function<GeneratedToken(std::span<const int64_t> tokens)>;

// What ends an answer: the end-of-text tokens of config.json, generation_config.json and the tokenizer.
std::vector<int64_t> end_tokens(const config::ModelConfig& config, const tokenizer::Tokenizer& tokenizer);

// The loop itself, whoever makes the tokens. Ends after one of end_tokens(), a stop string, or
// max_new_tokens. NotFinite of `next` ends it too, without losing what there is. check_generate() has passed.
Generation generate(const NextToken& next, const config::ModelConfig& config,
                    const tokenizer::Tokenizer& tokenizer, std::span<const int64_t> prompt,
                    const GenerateOptions& options, const GenerateListener& listener = {});

// With an Engine in this process; tensor ranks all call it, with the same arguments, and get the same. Calls
// check_generate() first.
Generation generate(const Model& model, const tokenizer::Tokenizer& tokenizer,
                    std::span<const int64_t> prompt, const GenerateOptions& options,
                    const GenerateListener& listener = {});

}  // namespace ee::infer
