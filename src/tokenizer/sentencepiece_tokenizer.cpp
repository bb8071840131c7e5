#include "sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/hash.h"
#include "utf8.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using nlohmann::json;
using sentencepiece::SentencePieceProcessor;

constexpr std::string_view kSpace = "\u2581";  // SentencePiece's visible space

// Appended to a serialized model it sets normalizer_spec.add_dummy_prefix = false: protobuf merges repeated
// occurrences of a message field (field 3, length 2: field 3 = 0).
constexpr std::string_view kNoDummyPrefix{"\x1a\x02\x18\x00", 4};

// Which sections of a text (what is between added tokens) get a space in front.
struct PrefixRule {
  enum class Sections { none, first, every } sections = Sections::none;
  bool doubled = false;  // even if the section begins with a space
};

bool is_llama(const std::string& tokenizer_class) { return tokenizer_class.starts_with("LlamaTokenizer"); }

bool prepends(const json& normalizer) {
  if (!normalizer.is_object()) return false;
  if (normalizer.value("type", "") == "Prepend") return true;
  const auto inner = normalizer.find("normalizers");
  return inner != normalizer.end() && std::any_of(inner->begin(), inner->end(), prepends);
}

const json* find_metaspace(const json& pre_tokenizer) {
  if (!pre_tokenizer.is_object()) return nullptr;
  if (pre_tokenizer.value("type", "") == "Metaspace") return &pre_tokenizer;
  if (const auto inner = pre_tokenizer.find("pretokenizers"); inner != pre_tokenizer.end()) {
    for (const json& part : *inner) {
      if (const json* found = find_metaspace(part)) return found;
    }
  }
  return nullptr;
}

// As transformers 5 decides it: its Llama class by its own options, every other by tokenizer.json.
PrefixRule prefix_rule(const json& description, const TokenizerConfig& config) {
  using Sections = PrefixRule::Sections;
  if (is_llama(config.tokenizer_class)) {
    if (!config.add_prefix_space.value_or(true)) return {};
    return {config.legacy.value_or(false) ? Sections::every : Sections::first, false};
  }
  if (description.is_null()) {
    if (config.legacy.value_or(true)) return {Sections::every, true};
    return {Sections::first, false};
  }
  if (prepends(description.value("normalizer", json()))) return {Sections::every, true};
  const json pre_tokenizer = description.value("pre_tokenizer", json());
  if (const json* metaspace = find_metaspace(pre_tokenizer)) {
    const std::string scheme = metaspace->value("prepend_scheme", "always");
    return {scheme == "always"  ? Sections::every
            : scheme == "first" ? Sections::first
                                : Sections::none,
            false};
  }
  return {};
}

void load_model(SentencePieceProcessor& processor, const std::string& bytes,
                const std::filesystem::path& path) {
  const auto status = processor.LoadFromSerializedProto(bytes);
  if (!status.ok())
    throw UserError("{} is not a SentencePiece model: {}", path.string(), status.error_message());
}

// The configuration's added tokens, and the model's own control and unknown tokens.
std::vector<AddedToken> all_added_tokens(const TokenizerConfig& config,
                                         const SentencePieceProcessor& processor, const std::string& where) {
  std::vector<AddedToken> tokens = config.added_tokens;
  for (AddedToken& token : tokens) token.normalized = false;  // there is nothing to normalize
  const auto known = [&](const std::string& text, int id) {
    return std::any_of(tokens.begin(), tokens.end(),
                       [&](const auto& token) { return token.content == text || token.id == id; });
  };
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    const std::string& piece = processor.IdToPiece(id);
    if ((processor.IsControl(id) || processor.IsUnknown(id)) && !known(piece, id)) {
      tokens.push_back({.id = id, .content = piece, .special = true});
    }
  }
  for (const std::string& text : config.special_tokens) {
    if (known(text, -1)) continue;
    const int id = processor.PieceToId(text);
    if (processor.IsUnknown(id)) {
      throw UserError(
          "{}: the special token '{}' of tokenizer_config.json is neither in the model nor among the added "
          "tokens",
          where, text);
    }
    tokens.push_back({.id = id, .content = text, .special = true});
  }
  return tokens;
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::filesystem::path& path, const json& description,
                         const TokenizerConfig& config)
      : added_(load(path, config)) {
    rule_ = with_prefix_.EncodeAsPieces("a").at(0).starts_with(kSpace) ? prefix_rule(description, config)
                                                                       : PrefixRule{};
    drops_first_space_ = rule_.sections != PrefixRule::Sections::none;
    bos_ = config.bos_token ? token_id(*config.bos_token) : known_id(with_prefix_.bos_id());
    eos_ = config.eos_token ? token_id(*config.eos_token) : known_id(with_prefix_.eos_id());
    // Llama's tokenizers begin with BOS unless told otherwise.
    adds_bos_ = bos_ && config.add_bos.value_or(true);
    if (config.add_eos) {
      throw UserError("{}: add_eos_token in tokenizer_config.json is not supported; set it to false",
                      path.string());
    }
    chat_template_ = config.chat_template;
    vocab_size_ = with_prefix_.GetPieceSize();
    for (const AddedToken& token : added_.all()) vocab_size_ = std::max(vocab_size_, token.id + 1);
    finish_fingerprint(path);
  }

  std::vector<int64_t> encode(std::string_view text, bool parse_special) const override {
    std::string repaired;
    if (!is_valid_utf8(text)) text = repaired = repair_utf8(text);
    Regex::Scratch scratch;
    std::vector<int64_t> ids;
    bool first = true;
    added_.cut(text, false, parse_special, scratch, [&](std::string_view section, const AddedToken* token) {
      if (token != nullptr) {
        ids.push_back(token->id);
      } else {
        encode_section(section, first, ids);
      }
      first = false;
    });
    return ids;
  }

  std::string token_bytes(int64_t token, bool keep_special) const override {
    if (const AddedToken* added = added_.find(token))
      return added->special && !keep_special ? "" : added->content;
    if (token < 0 || token >= with_prefix_.GetPieceSize()) return "";
    const int id = static_cast<int>(token);
    const std::string& piece = with_prefix_.IdToPiece(id);
    if (with_prefix_.IsByte(id)) {  // "<0x0A>"
      return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
    }
    std::string bytes;
    for (std::size_t at = 0; at < piece.size();) {
      const bool space = std::string_view(piece).substr(at).starts_with(kSpace);
      bytes += space ? ' ' : piece[at];
      at += space ? kSpace.size() : 1;
    }
    return bytes;
  }

  int64_t vocab_size() const override { return vocab_size_; }
  std::string fingerprint() const override { return fingerprint_; }

  std::optional<int64_t> token_id(std::string_view token) const override {
    if (const AddedToken* added = added_.find(token)) return added->id;
    std::string piece;
    for (const char byte : token) byte == ' ' ? piece += kSpace : piece += byte;
    const int id = with_prefix_.PieceToId(piece);
    return with_prefix_.IsUnknown(id) ? std::nullopt : std::optional<int64_t>(id);
  }

 private:
  // Loads both processors, which the list of added tokens needs.
  AddedTokens load(const std::filesystem::path& path, const TokenizerConfig& config) {
    const std::string bytes = base::read_text_file(path);
    load_model(with_prefix_, bytes, path);
    load_model(without_prefix_, bytes + std::string(kNoDummyPrefix), path);
    const auto unchanged = [](std::string_view text) { return std::string(text); };
    return AddedTokens(all_added_tokens(config, with_prefix_, path.string()), unchanged, path.string());
  }

  static std::optional<int64_t> known_id(int id) {
    return id < 0 ? std::nullopt : std::optional<int64_t>(id);
  }

  void encode_section(std::string_view section, bool first, std::vector<int64_t>& ids) const {
    bool prefix = rule_.sections == PrefixRule::Sections::every ||
                  (rule_.sections == PrefixRule::Sections::first && first);
    if (!rule_.doubled && (section.starts_with(' ') || section.starts_with(kSpace))) prefix = false;
    std::vector<int> found;
    const auto status = (prefix ? with_prefix_ : without_prefix_)
                            .Encode(absl::string_view(section.data(), section.size()), &found);
    EE_CHECK(status.ok(), "SentencePiece failed on {} bytes: {}", section.size(), status.error_message());
    ids.insert(ids.end(), found.begin(), found.end());
  }

  void finish_fingerprint(const std::filesystem::path& path) {
    base::Hasher hasher;
    hasher.update(fmt::format("SentencePiece 1, prefix {} {}, bos {} {}\n", static_cast<int>(rule_.sections),
                              rule_.doubled, adds_bos_, bos_.value_or(-1)));
    hasher.update(base::read_text_file(path));
    added_.hash_into(hasher);
    fingerprint_ = hasher.digest();
  }

  SentencePieceProcessor with_prefix_, without_prefix_;  // differ by add_dummy_prefix
  AddedTokens added_;
  PrefixRule rule_;
  int64_t vocab_size_ = 0;
  std::string fingerprint_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(const std::filesystem::path& model,
                                                        const json& description,
                                                        const TokenizerConfig& config) {
  return std::make_unique<SentencePieceTokenizer>(model, description, config);
}

}  // namespace ee::tokenizer
