#include <algorithm>
#include <iterator>

#include "ee/base/error.h"
#include "ee/data/documents.h"
#include "ee/data/packing.h"
#include "ee/eval/evaluate.h"
#include "ee/kernels/linear_cross_entropy.h"

namespace ee::eval {

namespace {

// What stands between two documents: end of text, or nothing if the model has no such token.
std::vector<int64_t> separator(const config::ModelConfig& config, const tokenizer::Tokenizer& tokenizer) {
  if (tokenizer.eos()) {
    return {*tokenizer.eos()};
  }
  return {config.eos_tokens.begin(), config.eos_tokens.begin() + (config.eos_tokens.empty() ? 0 : 1)};
}

void check(const EvalData& data, const config::ModelConfig& config) {
  if (data.sequences < 1) {
    throw base::UserError("sequences is {}, expected at least 1", data.sequences);
  }
  const config::TextLimit limit = config::text_limit(config);
  if (data.sequence_length < 1 || data.sequence_length > limit.tokens) {
    throw base::UserError("sequence-length is {}, expected 1 to {}, the model's {}", data.sequence_length,
                          limit.tokens, limit.reason);
  }
}

// Documents and what stands between them, each token with what is to be predicted in its place.
struct Stream {
  std::vector<int64_t> tokens, targets;

  void add(const std::vector<int64_t>& ids, int64_t prompt_tokens) {
    const auto prompt = std::min(prompt_tokens, std::ssize(ids));
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    targets.insert(targets.end(), static_cast<size_t>(prompt), kernels::kIgnoreToken);
    targets.insert(targets.end(), ids.begin() + prompt, ids.end());
  }

  Sequence window(size_t start, size_t length) const {
    const auto cut = [&](const std::vector<int64_t>& from, size_t begin) {
      const auto first = from.begin() + static_cast<std::ptrdiff_t>(begin);
      return std::vector<int64_t>(first, first + static_cast<std::ptrdiff_t>(length));
    };
    return {.tokens = cut(tokens, start), .targets = cut(targets, start + 1)};
  }
};

bool is_prompt(const Sequence& sequence) {
  return std::ranges::all_of(sequence.targets,
                             [](int64_t target) { return target == kernels::kIgnoreToken; });
}

}  // namespace

Sequences read_sequences(const EvalData& data, const config::ModelConfig& config,
                         const tokenizer::Tokenizer& tokenizer) {
  check(data, config);
  const std::vector<int64_t> between = separator(config, tokenizer);
  const auto length = static_cast<size_t>(data.sequence_length);
  const size_t enough =
      data.sequences > (int64_t{1} << 40) / data.sequence_length  // "all of it", without overflow
          ? std::string::npos
          : static_cast<size_t>(data.sequences) * length + 1;
  Stream stream;
  data::DocumentCount count;
  for (const std::filesystem::path& file : data::find_text_files({data.path.string()}, "--data")) {
    if (stream.tokens.size() >= enough) {
      break;
    }
    count += data::for_each_document(file, [&](const data::Document& document) {
      if (stream.tokens.size() >= enough) {
        return;
      }
      stream.add(data::document_tokens(document, tokenizer), document.prompt_tokens);
      stream.add(between, 0);
    });
  }
  count.warn("documents");
  if (stream.tokens.size() < length + 1) {
    throw base::UserError(
        "{} holds {} tokens, not enough for one sequence of {} and the token behind it; lower "
        "--sequence-length or "
        "give more text",
        data.path.string(), stream.tokens.size(), data.sequence_length);
  }
  Sequences sequences;
  for (size_t start = 0; start + length < std::min(stream.tokens.size(), enough); start += length) {
    sequences.push_back(stream.window(start, length));
  }
  std::erase_if(sequences, is_prompt);
  if (sequences.empty()) {
    throw base::UserError(
        "there is nothing to predict in the sequences of {} tokens that are read of {}, from its beginning: "
        "prompts only; give text with answers, more --sequences, or another --sequence-length",
        data.sequence_length, data.path.string());
  }
  return sequences;
}

Sequences draw_sequences(const DrawData& data, const config::ModelConfig& config,
                         const tokenizer::Tokenizer& tokenizer) {
  constexpr int64_t kAll = int64_t{1} << 40;
  Sequences all, drawn;
  for (const std::string& path : data.paths) {
    auto some = read_sequences({.path = path, .sequences = kAll, .sequence_length = data.sequence_length},
                               config, tokenizer);
    std::ranges::move(some, std::back_inserter(all));
  }
  const auto count = static_cast<int64_t>(all.size());
  const ::ee::data::Permutation order(count, data.seed);
  for (int64_t i = 0; i < std::min(count, data.sequences); ++i) {
    drawn.push_back(std::move(all[static_cast<size_t>(order[i])]));
  }
  return drawn;
}

}  // namespace ee::eval
