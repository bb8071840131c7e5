// How good the exits are: loss, agreement with the final layer, and what a threshold would let leave where
// (EE-Tuning section 4).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "ee/infer/model.h"
#include "ee/tokenizer/tokenizer.h"

namespace ee::eval {

inline constexpr double kThresholds[] = {0.9, 0.8, 0.6, 0.4};

struct AtThreshold {
  double threshold = 0.0;
  int64_t leave = 0;  // tokens whose first exit that reaches the threshold is this one
  int64_t agree = 0;  // of these, where the exit's argmax is the final layer's
};

struct ExitResult {
  int64_t layer = 0;                    // of the final layer: the number of layers
  int64_t depth = 0;                    // layers that run before it
  double loss = 0.0;                    // mean cross entropy with the next token, temperature included
  int64_t agree = 0;                    // tokens whose argmax is the final layer's
  std::vector<AtThreshold> thresholds;  // as kThresholds; of the final layer: what no exit took
};

struct Evaluation {
  int64_t tokens = 0;             // predictions made
  std::vector<ExitResult> exits;  // ascending by layer
  ExitResult final;
};

// A window of text. Predictions of what is a prompt's are not looked at.
struct Sequence {
  std::vector<int64_t> tokens;   // inside the vocabulary
  std::vector<int64_t> targets;  // the token behind each, or kernels::kIgnoreToken; at least one is a token
  bool operator==(const Sequence&) const = default;
};
using Sequences = std::vector<Sequence>;  // all equally long, at least one token

// `progress` is called with the number of sequences done.
Evaluation evaluate(const infer::Model& model, const Sequences& sequences,
                    const std::function<void(int64_t done)>& progress = {});

struct EvalData {
  std::filesystem::path path;     // a file of text or records, or a folder of both
  int64_t sequences = 32;         // at most so many are taken from the beginning
  int64_t sequence_length = 512;  // tokens a sequence
};

// Documents tokenized (data::document_tokens), joined with an end-of-text token behind each, and cut into
// windows of sequence_length tokens and the one behind; the rest is left out, and so are windows in which
// everything is a prompt. UserError: as data::find_text_files and for_each_document say; not enough text for
// one window; sequence_length beyond the model's positions.
Sequences read_sequences(const EvalData& data, const config::ModelConfig& config,
                         const tokenizer::Tokenizer& tokenizer);

struct DrawData {
  std::vector<std::string> paths;  // each as EvalData's
  int64_t sequences = 128;         // at most so many
  int64_t sequence_length = 256;
  uint64_t seed = 1234;
};

// read_sequences() of all of the text, of which some are drawn: the same ones for the same seed on every
// machine. Neighbours in a text resemble each other, so they come from all of it and in random order.
Sequences draw_sequences(const DrawData& data, const config::ModelConfig& config,
                         const tokenizer::Tokenizer& tokenizer);

// {"tokens":N,"exits":[{"layer":10,"loss":..,"perplexity":..,"agreement":..,"thresholds":{"0.9":{"share":..,
// "agreement":..}}}],"final":{...}} on one line; an agreement of no tokens is null.
std::string to_json(const Evaluation& evaluation);

// The same for people.
std::string to_table(const Evaluation& evaluation);

}  // namespace ee::eval
