#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/text.h"
#include "gguf_vocabulary.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using format::GgufFile;
using nlohmann::ordered_json;

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
  bool adds_bos = false;                   // unless tokenizer.ggml.add_bos_token says otherwise
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
    {.name = "llama-bpe", .splits = {kLlama3}, .adds_bos = true, .ignore_merges = true},
    {.name = "llama3", .splits = {kLlama3}, .adds_bos = true, .ignore_merges = true},
    {.name = "llama-v3", .splits = {kLlama3}, .adds_bos = true, .ignore_merges = true},
    {.name = "qwen2", .splits = {kQwen2}, .nfc = true},
    {.name = "tekken", .splits = {kTekken}, .adds_bos = true, .ignore_merges = true},
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

ordered_json added_tokens_json(const GgufVocabulary& vocabulary) {
  ordered_json list = ordered_json::array();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const int64_t type = vocabulary.types[id];
    if (type != kGgufControl && type != kGgufUserDefined) continue;
    list.push_back({{"id", id},
                    {"content", vocabulary.tokens[id]},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", false},
                    {"special", type == kGgufControl}});
  }
  return list;
}

ordered_json post_processor_json(const GgufFile& file, const GgufVocabulary& vocabulary, bool adds_bos) {
  const ordered_json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  if (!adds_bos) return byte_level;
  const auto bos = vocabulary.role(file, "bos");
  if (!bos) {
    throw UserError("{}: the tokenizer adds a BOS token, but there is no tokenizer.ggml.bos_token_id",
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

ordered_json tokenizer_json(const GgufFile& file, const GgufVocabulary& vocabulary,
                            const PreTokenization& kind, bool adds_bos) {
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
          {"post_processor", post_processor_json(file, vocabulary, adds_bos)},
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

void check_distinct(const GgufFile& file, const GgufVocabulary& vocabulary) {
  std::set<std::string_view> seen;
  for (const std::string& token : vocabulary.tokens) {
    if (!seen.insert(token).second) {
      throw UserError("{}: tokenizer.ggml.tokens lists '{}' twice", file.path().string(), token);
    }
  }
}

}  // namespace

void write_gguf_byte_bpe(const GgufFile& file, const GgufVocabulary& vocabulary,
                         const std::filesystem::path& folder) {
  check_distinct(file, vocabulary);
  const PreTokenization& kind = pre_tokenization(file);
  const bool* flag = file.find<bool>("tokenizer.ggml.add_bos_token");
  const bool adds_bos = flag != nullptr ? *flag : kind.adds_bos;
  const ordered_json tokenizer = tokenizer_json(file, vocabulary, kind, adds_bos);
  base::write_file_atomically(folder / "tokenizer.json", tokenizer.dump());
  ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"add_bos_token", adds_bos},
                         {"clean_up_tokenization_spaces", false}};
  write_gguf_tokenizer_config(file, vocabulary, std::move(config), folder);
}

}  // namespace ee::tokenizer
