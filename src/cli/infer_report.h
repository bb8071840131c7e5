// How ee-infer shows a generation: coloured by exit, as one JSON object, or with every exit's opinion.
#pragma once

#include <string>
#include <string_view>

#include "ee/infer/generate.h"

namespace ee::cli {

// Marks text by the exit that made it: an ANSI colour per exit, or, without colours, "[10: text]" for what
// early exits made. The final layer's text stays plain.
class ExitMarks {
 public:
  ExitMarks(const infer::Model& model, bool colours) : model_(model), colours_(colours) {}

  std::string mark(int64_t exit, std::string_view text) const;
  std::string legend() const;

 private:
  const infer::Model& model_;
  bool colours_;
};

// Tokens per exit as bars, average layers per token, tokens per second; for people.
std::string exit_histogram(const infer::Model& model, const infer::Generation& generation);

// One line: position, chosen token and exit, then token and confidence of every exit.
std::string probe_line(const infer::Model& model, const tokenizer::Tokenizer& tokenizer, size_t position,
                       const infer::GeneratedToken& token);

// {"text","finish","prompt_tokens","tokens":[{"id","text","exit","confidence","ms"}],"totals":{...}} on one
// line; with "error" if one ended it. "exit" is the layer of an early exit or "final". With opinions, a token
// also has "exits":[{"exit","id","text", "confidence"}].
std::string generation_json(const infer::Model& model, const tokenizer::Tokenizer& tokenizer,
                            const infer::Generation& generation);

}  // namespace ee::cli
