#include "gguf_pre_tokenizers.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/text.h"
#include "known_regexes.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using format::GgufFile;
using nlohmann::ordered_json;

constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Letters of the alphabets that have capitals and small letters.
constexpr const char* kDeepseekLetters =
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1})"
    R"(\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5})"
    R"(\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-)"
    R"(\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57})"
    R"(\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4})"
    R"(\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-)"
    R"(\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-)"
    R"(\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-)"
    R"(\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722})"
    R"(-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17})"
    R"(\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80})"
    R"(-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+)";
constexpr const char* kDeepseekPunctuation =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
constexpr const char* kCjkAndHangul = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";

constexpr PreTokenization kPreTokenizations[] = {
    {.name = "gpt-2", .gpt2_regex = true},
    {.name = "gpt2", .gpt2_regex = true},
    {.name = "phi-2", .gpt2_regex = true},
    {.name = "olmo", .gpt2_regex = true, .nfc = true},
    {.name = "mpt", .gpt2_regex = true, .nfc = true},
    {.name = "smollm", .single_digits = true, .gpt2_regex = true},
    {.name = "starcoder", .single_digits = true, .gpt2_regex = true},
    {.name = "refact", .single_digits = true, .gpt2_regex = true},
    {.name = "codeshell", .single_digits = true, .gpt2_regex = true},
    {.name = "command-r", .single_digits = true, .gpt2_regex = true, .nfc = true},
    {.name = "llama-bpe", .splits = {kLlama3}, .adds_bos = true, .ignore_merges = true},
    {.name = "llama3", .splits = {kLlama3}, .adds_bos = true, .ignore_merges = true},
    {.name = "llama-v3", .splits = {kLlama3}, .adds_bos = true, .ignore_merges = true},
    {.name = "falcon3", .splits = {kLlama3}, .adds_bos = true, .ignore_merges = true},
    {.name = "falcon-h1", .splits = {kLlama3}, .adds_bos = true, .ignore_merges = true},
    {.name = "pixtral", .splits = {kLlama3}, .adds_bos = true, .ignore_merges = true},
    {.name = "midm-2.0", .splits = {kLlama3}, .adds_bos = true, .ignore_merges = true},
    {.name = "lfm2", .splits = {kLlama3}, .adds_bos = true, .ignore_merges = true},
    {.name = "dbrx", .splits = {kLlama3}},
    {.name = "smaug-bpe", .splits = {kLlama3}},
    {.name = "qwen2", .splits = {kQwen2Regex}, .nfc = true},
    {.name = "deepseek-r1-qwen", .splits = {kQwen2Regex}, .nfc = true},
    {.name = "qwen35",
     .splits = {kQwen35}},  // llama.cpp's ids of letters with combining marks are not composed
    {.name = "tekken", .splits = {kTekken}, .adds_bos = true, .ignore_merges = true},
    {.name = "gpt-4o", .splits = {kGpt4o}},
    {.name = "llama4", .splits = {kGpt4o}},
    {.name = "deepseek-llm",
     .splits = {R"([\r\n])", kDeepseekLetters, kDeepseekPunctuation, R"(\s+$)", kCjkAndHangul},
     .digits_last = true},
    {.name = "deepseek-coder",
     .splits = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kCjkAndHangul},
     .digits_last = true},
    {.name = "falcon", .splits = {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2Regex, "[0-9]+", "[0-9][0-9][0-9]"}},
    // llama.cpp's fallback for vocabularies that it had no name for.
    {.name = "default", .splits = {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Regex, R"(\p{N}+)", R"([0-9][0-9][0-9])"}},
};

const PreTokenization& named(std::string_view name) {
  return *std::ranges::find_if(kPreTokenizations, [&](const auto& entry) { return name == entry.name; });
}

// A merge of a space with a digit: GPT-2's expression alone leaves the two in one word.
bool merges_space_and_digit(const GgufFile& file) {
  return std::ranges::any_of(
      file.get<std::vector<std::string>>("tokenizer.ggml.merges"), [](const std::string& merge) {
        return merge.size() == 4 && merge.starts_with("\u0120 ") && merge[3] >= '0' && merge[3] <= '9';
      });
}

}  // namespace

const PreTokenization& gguf_pre_tokenization(const GgufFile& file) {
  const std::string* name = file.find<std::string>("tokenizer.ggml.pre");
  if (name == nullptr && merges_space_and_digit(file)) {
    const std::string* architecture = file.find<std::string>("general.architecture");
    return named(architecture != nullptr && *architecture == "gptneox" ? "olmo" : "gpt-2");
  }
  std::vector<std::string> known;
  for (const PreTokenization& entry : kPreTokenizations) {
    if (name != nullptr && *name == entry.name) return entry;
    known.emplace_back(entry.name);
  }
  throw UserError(
      "{}: tokenizer.ggml.pre is {}; how that splits text is not known here (known: {}). Take the model's "
      "Hugging "
      "Face folder, or a newer GGUF file of it",
      file.path().string(), name == nullptr ? "missing" : "'" + *name + "'", base::join(known, ", "));
}

ordered_json normalizer_json(const PreTokenization& kind) {
  return kind.nfc ? ordered_json{{"type", "NFC"}} : ordered_json(nullptr);
}

ordered_json pre_tokenizer_json(const PreTokenization& kind) {
  const ordered_json digits = {{"type", "Digits"}, {"individual_digits", true}};
  ordered_json steps = ordered_json::array();
  if (kind.single_digits) steps.push_back(digits);
  for (const char* regex : kind.splits) {
    if (regex == nullptr) break;
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  if (kind.digits_last) steps.push_back(digits);
  steps.push_back({{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", true},
                   {"use_regex", kind.gpt2_regex}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

}  // namespace ee::tokenizer
