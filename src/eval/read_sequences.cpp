#include <algorithm>

#include "ee/base/error.h"
#include "ee/data/documents.h"
#include "ee/eval/evaluate.h"

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
  if (data.sequence_length < 1 || data.sequence_length > config.max_positions) {
    throw base::UserError("sequence-length is {}, expected 1 to {}, the model's max_position_embeddings",
                          data.sequence_length, config.max_positions);
  }
}

}  // namespace

std::vector<std::vector<int64_t>> read_sequences(const EvalData& data, const config::ModelConfig& config,
                                                 const tokenizer::Tokenizer& tokenizer) {
  check(data, config);
  const std::vector<int64_t> between = separator(config, tokenizer);
  const auto length = static_cast<size_t>(data.sequence_length);
  const size_t enough =
      data.sequences > (int64_t{1} << 40) / data.sequence_length  // "all of it", without overflow
          ? std::string::npos
          : static_cast<size_t>(data.sequences) * length + 1;
  std::vector<int64_t> stream;
  for (const std::filesystem::path& file : data::find_text_files({data.path.string()}, "--data")) {
    if (stream.size() >= enough) {
      break;
    }
    data::for_each_document(file, [&](const data::Document& document) {
      if (stream.size() >= enough) {
        return;
      }
      const std::vector<int64_t> tokens = data::document_tokens(document, tokenizer);
      stream.insert(stream.end(), tokens.begin(), tokens.end());
      stream.insert(stream.end(), between.begin(), between.end());
    });
  }
  if (stream.size() < length + 1) {
    throw base::UserError(
        "{} holds {} tokens, not enough for one sequence of {} and the token behind it; lower "
        "--sequence-length or "
        "give more text",
        data.path.string(), stream.size(), data.sequence_length);
  }
  std::vector<std::vector<int64_t>> sequences;
  for (size_t start = 0; start + length < std::min(stream.size(), enough); start += length) {
    sequences.emplace_back(stream.begin() + static_cast<std::ptrdiff_t>(start),
                           stream.begin() + static_cast<std::ptrdiff_t>(start + length + 1));
  }
  return sequences;
}

}  // namespace ee::eval
