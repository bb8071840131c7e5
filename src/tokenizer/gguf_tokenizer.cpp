#include "ee/tokenizer/gguf_tokenizer.h"

#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "gguf_vocabulary.h"

namespace ee::tokenizer {

using base::UserError;
using format::GgufFile;

GgufVocabulary::GgufVocabulary(const GgufFile& file)
    : tokens(file.get<std::vector<std::string>>("tokenizer.ggml.tokens")),
      types(file.get<std::vector<int64_t>>("tokenizer.ggml.token_type")),
      sentencepiece(file.get<std::string>("tokenizer.ggml.model") == "llama") {
  if (types.size() != tokens.size()) {
    throw UserError("{}: tokenizer.ggml.token_type has {} entries, tokenizer.ggml.tokens {}",
                    file.path().string(), types.size(), tokens.size());
  }
}

std::optional<int64_t> GgufVocabulary::role_id(const GgufFile& file, const std::string& name) const {
  const std::string key = "tokenizer.ggml." + name + "_token_id";
  const int64_t* id = file.find<int64_t>(key);
  if (id == nullptr) {
    const int64_t otherwise = name == "unknown" ? 0 : name == "bos" ? 1 : name == "eos" ? 2 : -1;
    const bool known = sentencepiece && otherwise >= 0 && otherwise < static_cast<int64_t>(tokens.size());
    return known ? std::optional(otherwise) : std::nullopt;
  }
  if (*id < 0 || *id >= static_cast<int64_t>(tokens.size())) {
    throw UserError("{}: {} is {}, but there are {} tokens", file.path().string(), key, *id, tokens.size());
  }
  return *id;
}

std::optional<std::string> GgufVocabulary::role(const GgufFile& file, const std::string& name) const {
  const auto id = role_id(file, name);
  return id ? std::optional(tokens[static_cast<std::size_t>(*id)]) : std::nullopt;
}

void write_hf_tokenizer(const GgufFile& file, const std::filesystem::path& folder) {
  const std::string& model = file.get<std::string>("tokenizer.ggml.model");
  const auto write = model == "gpt2"     ? write_gguf_byte_bpe
                     : model == "llama"  ? write_gguf_sentencepiece
                     : model == "gemma4" ? write_gguf_gemma4
                                         : nullptr;
  if (write == nullptr) {
    throw UserError(
        "{}: tokenizer.ggml.model is '{}'; supported: gpt2 (byte-level BPE), llama (SentencePiece), gemma4",
        file.path().string(), model);
  }
  const GgufVocabulary vocabulary(file);
  try {
    write(file, vocabulary, folder);
  } catch (const nlohmann::json::type_error& error) {
    throw UserError("{}: the tokenizer has text that is not UTF-8: {}", file.path().string(), error.what());
  }
}

}  // namespace ee::tokenizer
