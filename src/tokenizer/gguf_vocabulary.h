// What the two kinds of tokenizers in GGUF files share: the list of tokens and their roles.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ee/format/gguf.h"

namespace ee::tokenizer {

// llama.cpp's token types, which are SentencePiece's.
inline constexpr int64_t kGgufUnknown = 2, kGgufControl = 3, kGgufUserDefined = 4, kGgufByte = 6;

struct GgufVocabulary {
  const std::vector<std::string>& tokens;  // by id
  const std::vector<int64_t>& types;       // one for each token

  // UserError if the two lists do not fit together.
  explicit GgufVocabulary(const format::GgufFile& file);

  // The id in tokenizer.ggml.<name>_token_id, if the file has that key; UserError if there is no such token.
  std::optional<int64_t> role_id(const format::GgufFile& file, const std::string& name) const;
  std::optional<std::string> role(const format::GgufFile& file, const std::string& name) const;  // its text
};

// Each writes the files of its kind, with write_gguf_tokenizer_config() for those that both have.
void write_gguf_byte_bpe(const format::GgufFile& file, const GgufVocabulary& vocabulary,
                         const std::filesystem::path& folder);
void write_gguf_sentencepiece(const format::GgufFile& file, const GgufVocabulary& vocabulary,
                              const std::filesystem::path& folder);

// Adds the tokens with roles and the chat template to `config` and writes tokenizer_config.json and
// chat_template.jinja.
void write_gguf_tokenizer_config(const format::GgufFile& file, const GgufVocabulary& vocabulary,
                                 nlohmann::ordered_json config, const std::filesystem::path& folder);

}  // namespace ee::tokenizer
