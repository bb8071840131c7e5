#include "ee/tokenizer/gguf_tokenizer.h"

#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "gguf_vocabulary.h"

namespace ee::tokenizer {

using base::UserError;
using format::GgufFile;
using nlohmann::ordered_json;

GgufVocabulary::GgufVocabulary(const GgufFile& file)
    : tokens(file.get<std::vector<std::string>>("tokenizer.ggml.tokens")),
      types(file.get<std::vector<int64_t>>("tokenizer.ggml.token_type")) {
  if (types.size() != tokens.size()) {
    throw UserError("{}: tokenizer.ggml.token_type has {} entries, tokenizer.ggml.tokens {}",
                    file.path().string(), types.size(), tokens.size());
  }
}

std::optional<int64_t> GgufVocabulary::role_id(const GgufFile& file, const std::string& name) const {
  const std::string key = "tokenizer.ggml." + name + "_token_id";
  const int64_t* id = file.find<int64_t>(key);
  if (id == nullptr) return {};
  if (*id < 0 || *id >= static_cast<int64_t>(tokens.size())) {
    throw UserError("{}: {} is {}, but there are {} tokens", file.path().string(), key, *id, tokens.size());
  }
  return *id;
}

std::optional<std::string> GgufVocabulary::role(const GgufFile& file, const std::string& name) const {
  const auto id = role_id(file, name);
  return id ? std::optional(tokens[static_cast<std::size_t>(*id)]) : std::nullopt;
}

namespace {

// Templates for other purposes than chat, as transformers keeps them beside the default one.
void write_additional_templates(const GgufFile& file, const std::filesystem::path& folder) {
  const auto* names = file.find<std::vector<std::string>>("tokenizer.chat_templates");
  if (names == nullptr) return;
  constexpr const char* kSafe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  for (const std::string& name : *names) {
    if (name.empty() || name.find_first_not_of(kSafe) != std::string::npos) {
      throw UserError("{}: tokenizer.chat_templates names '{}', which is no name for a file",
                      file.path().string(), name);
    }
    const std::string* text = file.find<std::string>("tokenizer.chat_template." + name);
    if (text == nullptr) continue;
    std::filesystem::create_directories(folder / "additional_chat_templates");
    base::write_file_atomically(folder / "additional_chat_templates" / (name + ".jinja"), *text);
  }
}

}  // namespace

void write_gguf_tokenizer_config(const GgufFile& file, const GgufVocabulary& vocabulary, ordered_json config,
                                 const std::filesystem::path& folder) {
  for (const auto& [key, name] : {std::pair("bos_token", "bos"), std::pair("eos_token", "eos"),
                                  std::pair("pad_token", "padding"), std::pair("unk_token", "unknown")}) {
    const auto text = vocabulary.role(file, name);
    config[key] = text ? ordered_json(*text) : ordered_json(nullptr);
  }
  const std::string* chat_template = file.find<std::string>("tokenizer.chat_template");
  if (chat_template != nullptr) {
    config["chat_template"] = *chat_template;
    base::write_file_atomically(folder / "chat_template.jinja", *chat_template);
  }
  write_additional_templates(file, folder);
  base::write_file_atomically(folder / "tokenizer_config.json", config.dump(2) + "\n");
}

void write_hf_tokenizer(const GgufFile& file, const std::filesystem::path& folder) {
  const std::string& model = file.get<std::string>("tokenizer.ggml.model");
  if (model != "gpt2" && model != "llama") {
    throw UserError(
        "{}: tokenizer.ggml.model is '{}'; supported: gpt2 (byte-level BPE), llama (SentencePiece)",
        file.path().string(), model);
  }
  const GgufVocabulary vocabulary(file);
  try {
    model == "gpt2" ? write_gguf_byte_bpe(file, vocabulary, folder)
                    : write_gguf_sentencepiece(file, vocabulary, folder);
  } catch (const nlohmann::json::type_error& error) {
    throw UserError("{}: the tokenizer has text that is not UTF-8: {}", file.path().string(), error.what());
  }
}

}  // namespace ee::tokenizer
