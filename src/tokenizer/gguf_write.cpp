#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "gguf_vocabulary.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using format::GgufFile;
using nlohmann::ordered_json;

// Phi-3's turns are written with a newline that is part of them. A GGUF file cannot say so; llama.cpp knows
// it by the model's name.
bool takes_space_behind(const GgufFile& file, const std::string& text) {
  const std::string* name = file.find<std::string>("general.name");
  if (name == nullptr || text == "<unk>" || text == "<s>" || text == "<|endoftext|>") return false;
  std::string lower = *name;
  std::ranges::transform(lower, lower.begin(), [](unsigned char byte) { return std::tolower(byte); });
  return lower.find("phi-3") != std::string::npos || lower.find("phi3") != std::string::npos;
}

ordered_json added_tokens_json(const GgufFile& file, const GgufVocabulary& vocabulary) {
  std::unordered_map<std::string_view, std::size_t> last;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) last[vocabulary.tokens[id]] = id;
  ordered_json list = ordered_json::array();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const int64_t type = vocabulary.types[id];
    const std::string& text = vocabulary.tokens[id];
    if (type != kGgufControl && type != kGgufUnknown && type != kGgufUserDefined) continue;
    if (last.at(text) != id || text.empty()) continue;
    list.push_back({{"id", id},
                    {"content", text},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", takes_space_behind(file, text)},
                    {"normalized", false},
                    {"special", type != kGgufUserDefined}});
  }
  return list;
}

// The texts around a text, as a template of tokenizer.json.
ordered_json post_processor_json(const GgufFile& file, const GgufVocabulary& vocabulary, bool adds_bos,
                                 bool adds_eos) {
  ordered_json single = ordered_json::array(), pair = ordered_json::array();
  ordered_json specials = ordered_json::object();
  const auto put_token = [&](const char* role) {
    const auto text = vocabulary.role(file, role);
    if (!text) {
      throw UserError(
          "{}: the tokenizer adds a token with the role {}, but there is no tokenizer.ggml.{}_token_id",
          file.path().string(), role, role);
    }
    for (ordered_json* list : {&single, &pair}) {
      list->push_back({{"SpecialToken", {{"id", *text}, {"type_id", 0}}}});
    }
    specials[*text] = {{"id", *text},
                       {"ids", ordered_json::array({*vocabulary.role_id(file, role)})},
                       {"tokens", ordered_json::array({*text})}};
  };
  const auto put_text = [](ordered_json& list, const char* name) {
    list.push_back({{"Sequence", {{"id", name}, {"type_id", 0}}}});
  };
  if (adds_bos) put_token("bos");
  put_text(single, "A");
  put_text(pair, "A");
  put_text(pair, "B");
  if (adds_eos) put_token("eos");
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", specials}};
}

ordered_json config_json(const GgufFile& file, const GgufVocabulary& vocabulary) {
  ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"clean_up_tokenization_spaces", false}};
  for (const auto& [key, name] : {std::pair("bos_token", "bos"), std::pair("eos_token", "eos"),
                                  std::pair("pad_token", "padding"), std::pair("unk_token", "unknown")}) {
    const auto text = vocabulary.role(file, name);
    config[key] = text ? ordered_json(*text) : ordered_json(nullptr);
  }
  return config;
}

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

void write_config(const GgufFile& file, ordered_json config, const std::filesystem::path& folder) {
  const std::string* chat_template = file.find<std::string>("tokenizer.chat_template");
  if (chat_template != nullptr) {
    config["chat_template"] = *chat_template;
    base::write_file_atomically(folder / "chat_template.jinja", *chat_template);
  }
  write_additional_templates(file, folder);
  base::write_file_atomically(folder / "tokenizer_config.json", config.dump(2) + "\n");
}

}  // namespace

std::vector<std::pair<std::string, std::string>> gguf_merges(const GgufFile& file) {
  std::vector<std::pair<std::string, std::string>> merges;
  for (const std::string& merge : file.get<std::vector<std::string>>("tokenizer.ggml.merges")) {
    const std::size_t space = merge.find(' ', 1);
    if (space == std::string::npos) {
      throw UserError("{}: tokenizer.ggml.merges has '{}', expected two texts with a space between",
                      file.path().string(), merge);
    }
    merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return merges;
}

ordered_json bpe_model_json(const GgufVocabulary& vocabulary,
                            const std::vector<std::pair<std::string, std::string>>& merges) {
  std::unordered_map<std::string_view, std::size_t> last;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) last[vocabulary.tokens[id]] = id;
  ordered_json vocab = ordered_json::object();
  auto& entries = vocab.get_ref<ordered_json::object_t&>();
  entries.reserve(vocabulary.tokens.size());
  // Appended directly: ordered_json's own insertion looks for duplicates, which are left out here.
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (last.at(vocabulary.tokens[id]) != id) continue;
    entries.std::vector<std::pair<const std::string, ordered_json>>::emplace_back(vocabulary.tokens[id], id);
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", false},
          {"vocab", std::move(vocab)},
          {"merges", merges}};
}

void write_gguf_tokenizer(const GgufFile& file, const GgufVocabulary& vocabulary, GgufTokenizer parts,
                          const std::filesystem::path& folder) {
  const bool* bos = file.find<bool>("tokenizer.ggml.add_bos_token");
  const bool* eos = file.find<bool>("tokenizer.ggml.add_eos_token");
  const ordered_json tokenizer = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added_tokens_json(file, vocabulary)},
      {"normalizer", std::move(parts.normalizer)},
      {"pre_tokenizer", std::move(parts.pre_tokenizer)},
      {"post_processor",
       post_processor_json(file, vocabulary, bos != nullptr ? *bos : parts.adds_bos, eos != nullptr && *eos)},
      {"decoder", std::move(parts.decoder)},
      {"model", std::move(parts.model)}};
  base::write_file_atomically(folder / "tokenizer.json", tokenizer.dump());
  write_config(file, config_json(file, vocabulary), folder);
}

}  // namespace ee::tokenizer
