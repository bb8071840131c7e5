// What the kinds of tokenizers in GGUF files share: the list of tokens, their roles, and how they are
// written.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ee/format/gguf.h"

namespace ee::tokenizer {

// llama.cpp's token types, which are SentencePiece's.
inline constexpr int64_t kGgufUnknown = 2, kGgufControl = 3, kGgufUserDefined = 4, kGgufByte = 6;

struct GgufVocabulary {
  const std::vector<std::string>& tokens;  // by id
  const std::vector<int64_t>& types;       // one for each token
  bool sentencepiece;                      // then roles that the file does not mention are llama.cpp's own

  // UserError if the two lists do not fit together.
  explicit GgufVocabulary(const format::GgufFile& file);

  // The id in tokenizer.ggml.<name>_token_id, if the file has that key; UserError if there is no such token.
  std::optional<int64_t> role_id(const format::GgufFile& file, const std::string& name) const;
  std::optional<std::string> role(const format::GgufFile& file, const std::string& name) const;  // its text
};

// tokenizer.ggml.merges as pairs. A text may begin with a space, but has none behind its first character.
std::vector<std::pair<std::string, std::string>> gguf_merges(const format::GgufFile& file);

// `model` of tokenizer.json. Of ids with one text the last counts, as for llama.cpp and transformers: the
// others come out of no text.
nlohmann::ordered_json bpe_model_json(const GgufVocabulary& vocabulary,
                                      const std::vector<std::pair<std::string, std::string>>& merges);

// Parts of tokenizer.json by its names for them.
struct GgufTokenizer {
  nlohmann::ordered_json normalizer, pre_tokenizer, decoder, model;
  bool adds_bos = false;  // unless tokenizer.ggml.add_bos_token says otherwise
};

// Writes tokenizer.json, tokenizer_config.json and chat_template.jinja.
void write_gguf_tokenizer(const format::GgufFile& file, const GgufVocabulary& vocabulary, GgufTokenizer parts,
                          const std::filesystem::path& folder);

// Each calls write_gguf_tokenizer() with the parts of its kind.
void write_gguf_byte_bpe(const format::GgufFile& file, const GgufVocabulary& vocabulary,
                         const std::filesystem::path& folder);
void write_gguf_sentencepiece(const format::GgufFile& file, const GgufVocabulary& vocabulary,
                              const std::filesystem::path& folder);
void write_gguf_gemma4(const format::GgufFile& file, const GgufVocabulary& vocabulary,
                       const std::filesystem::path& folder);

}  // namespace ee::tokenizer
