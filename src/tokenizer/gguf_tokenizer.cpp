#include "ee/tokenizer/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/text.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using format::GgufFile;
using nlohmann::ordered_json;

// llama.cpp's token types.
constexpr int64_t kControl = 3, kUserDefined = 4;

constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// What each name of tokenizer.ggml.pre means for tokenizer.json.
struct PreTokenization {
  const char* name;
  bool single_digits = false;              // every digit is a word, before anything else
  std::array<const char*, 4> splits = {};  // regular expressions, in order, up to the first null
  bool gpt2_regex = false;                 // ByteLevel splits by its own expression
  bool nfc = false;                        // the text is normalized first
  bool ignore_merges = false;              // a word in the vocabulary is one token whatever the merges say
};

constexpr PreTokenization kPreTokenizations[] = {
    {.name = "gpt-2", .gpt2_regex = true},
    {.name = "gpt2", .gpt2_regex = true},
    {.name = "olmo", .gpt2_regex = true},
    {.name = "smollm", .single_digits = true, .gpt2_regex = true},
    {.name = "starcoder", .single_digits = true, .gpt2_regex = true},
    {.name = "refact", .single_digits = true, .gpt2_regex = true},
    {.name = "codeshell", .single_digits = true, .gpt2_regex = true},
    {.name = "llama-bpe", .splits = {kLlama3}, .ignore_merges = true},
    {.name = "llama3", .splits = {kLlama3}, .ignore_merges = true},
    {.name = "llama-v3", .splits = {kLlama3}, .ignore_merges = true},
    {.name = "qwen2", .splits = {kQwen2}, .nfc = true},
    {.name = "tekken", .splits = {kTekken}, .ignore_merges = true},
    {.name = "gpt-4o", .splits = {kGpt4o}},
    // llama.cpp's fallback for vocabularies that it had no name for.
    {.name = "default",
     .splits = {R"([\p{P}\$\+<=>\^~\|]+)",
                R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))", R"(\p{N}+)",
                R"([0-9][0-9][0-9])"}},
};

const PreTokenization& pre_tokenization(const GgufFile& file) {
  const std::string* name = file.find<std::string>("tokenizer.ggml.pre");
  std::vector<std::string> known;
  for (const PreTokenization& entry : kPreTokenizations) {
    if (name != nullptr && *name == entry.name) return entry;
    known.emplace_back(entry.name);
  }
  throw UserError("{}: tokenizer.ggml.pre is {}; how that splits text is not known here (known: {})",
                  file.path().string(), name == nullptr ? "missing" : "'" + *name + "'",
                  base::join(known, ", "));
}

ordered_json pre_tokenizer_json(const PreTokenization& kind) {
  ordered_json steps = ordered_json::array();
  if (kind.single_digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  for (const char* regex : kind.splits) {
    if (regex == nullptr) break;
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", true},
                   {"use_regex", kind.gpt2_regex}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

// The file's lists, checked against each other.
struct Vocabulary {
  const std::vector<std::string>& tokens;
  const std::vector<int64_t>& types;
};

Vocabulary read_vocabulary(const GgufFile& file) {
  const std::string& model = file.get<std::string>("tokenizer.ggml.model");
  if (model != "gpt2") {
    throw UserError("{}: tokenizer.ggml.model is '{}', only 'gpt2' (byte-level BPE) is supported",
                    file.path().string(), model);
  }
  const auto& tokens = file.get<std::vector<std::string>>("tokenizer.ggml.tokens");
  const auto& types = file.get<std::vector<int64_t>>("tokenizer.ggml.token_type");
  if (types.size() != tokens.size()) {
    throw UserError("{}: tokenizer.ggml.token_type has {} entries, tokenizer.ggml.tokens {}",
                    file.path().string(), types.size(), tokens.size());
  }
  std::set<std::string_view> seen;
  for (const std::string& token : tokens) {
    if (!seen.insert(token).second) {
      throw UserError("{}: tokenizer.ggml.tokens lists '{}' twice", file.path().string(), token);
    }
  }
  return {tokens, types};
}

// The text of the token that tokenizer.ggml.<role>_token_id names, if the file has that key.
std::optional<std::string> role(const GgufFile& file, const Vocabulary& vocabulary, const std::string& name) {
  const std::string key = "tokenizer.ggml." + name + "_token_id";
  const int64_t* id = file.find<int64_t>(key);
  if (id == nullptr) return {};
  if (*id < 0 || *id >= static_cast<int64_t>(vocabulary.tokens.size())) {
    throw UserError("{}: {} is {}, but there are {} tokens", file.path().string(), key, *id,
                    vocabulary.tokens.size());
  }
  return vocabulary.tokens[static_cast<std::size_t>(*id)];
}

ordered_json added_tokens_json(const Vocabulary& vocabulary) {
  ordered_json list = ordered_json::array();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const int64_t type = vocabulary.types[id];
    if (type != kControl && type != kUserDefined) continue;
    list.push_back({{"id", id},
                    {"content", vocabulary.tokens[id]},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", false},
                    {"special", type == kControl}});
  }
  return list;
}

bool adds_bos(const GgufFile& file) {
  const bool* flag = file.find<bool>("tokenizer.ggml.add_bos_token");
  return flag != nullptr && *flag;
}

ordered_json post_processor_json(const GgufFile& file, const std::optional<std::string>& bos) {
  const ordered_json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  if (!adds_bos(file)) return byte_level;
  if (!bos) {
    throw UserError("{}: tokenizer.ggml.add_bos_token is true, but there is no tokenizer.ggml.bos_token_id",
                    file.path().string());
  }
  const auto special = [&](int type) {
    return ordered_json{{"SpecialToken", {{"id", *bos}, {"type_id", type}}}};
  };
  const auto text = [](const char* id, int type) {
    return ordered_json{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  const ordered_json bos_template = {
      {"type", "TemplateProcessing"},
      {"single", ordered_json::array({special(0), text("A", 0)})},
      {"pair", ordered_json::array({special(0), text("A", 0), special(1), text("B", 1)})},
      {"special_tokens",
       {{*bos,
         {{"id", *bos},
          {"ids", ordered_json::array({file.get<int64_t>("tokenizer.ggml.bos_token_id")})},
          {"tokens", ordered_json::array({*bos})}}}}}};
  return {{"type", "Sequence"}, {"processors", ordered_json::array({byte_level, bos_template})}};
}

ordered_json tokenizer_json(const GgufFile& file, const Vocabulary& vocabulary, const PreTokenization& kind) {
  ordered_json vocab = ordered_json::object();
  auto& entries = vocab.get_ref<ordered_json::object_t&>();
  entries.reserve(vocabulary.tokens.size());
  // Appended directly: ordered_json's own insertion looks for duplicates, which were excluded above.
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    entries.std::vector<std::pair<const std::string, ordered_json>>::emplace_back(vocabulary.tokens[id], id);
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens_json(vocabulary)},
          {"normalizer", kind.nfc ? ordered_json{{"type", "NFC"}} : ordered_json(nullptr)},
          {"pre_tokenizer", pre_tokenizer_json(kind)},
          {"post_processor", post_processor_json(file, role(file, vocabulary, "bos"))},
          {"decoder",
           {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", kind.ignore_merges},
            {"vocab", std::move(vocab)},
            {"merges", file.get<std::vector<std::string>>("tokenizer.ggml.merges")}}}};
}

ordered_json config_json(const GgufFile& file, const Vocabulary& vocabulary) {
  ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"add_bos_token", adds_bos(file)},
                         {"clean_up_tokenization_spaces", false}};
  for (const auto& [key, name] : {std::pair("bos_token", "bos"), std::pair("eos_token", "eos"),
                                  std::pair("pad_token", "padding"), std::pair("unk_token", "unknown")}) {
    const auto text = role(file, vocabulary, name);
    config[key] = text ? ordered_json(*text) : ordered_json(nullptr);
  }
  return config;
}

}  // namespace

void write_hf_tokenizer(const GgufFile& file, const std::filesystem::path& folder) {
  const Vocabulary vocabulary = read_vocabulary(file);
  const ordered_json tokenizer = tokenizer_json(file, vocabulary, pre_tokenization(file));
  ordered_json config = config_json(file, vocabulary);
  const std::string* chat_template = file.find<std::string>("tokenizer.chat_template");
  if (chat_template != nullptr) config["chat_template"] = *chat_template;
  try {
    base::write_file_atomically(folder / "tokenizer.json", tokenizer.dump());
    base::write_file_atomically(folder / "tokenizer_config.json", config.dump(2) + "\n");
  } catch (const nlohmann::json::type_error& error) {
    throw UserError("{}: the tokenizer has text that is not UTF-8: {}", file.path().string(), error.what());
  }
  if (chat_template != nullptr) base::write_file_atomically(folder / "chat_template.jinja", *chat_template);
}

}  // namespace ee::tokenizer
