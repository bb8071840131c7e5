#include "byte_bpe_tokenizer.h"

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>

#include "bpe_model.h"
#include "ee/base/error.h"
#include "ee/base/hash.h"
#include "nfc.h"
#include "post_processor.h"
#include "pre_tokenizer.h"
#include "utf8.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using nlohmann::json;

constexpr std::size_t kLongestCachedWord = 64;
constexpr std::size_t kMostCachedWords = 1 << 17;

// Whether the text is brought to Unicode's form C first.
bool normalizes_to_nfc(const json& normalizer, const std::string& where) {
  if (normalizer.is_null()) return false;
  const std::string type = normalizer.at("type");
  if (type == "NFC") return true;
  if (type == "Sequence") {
    bool any = false;
    for (const json& inner : normalizer.at("normalizers")) any |= normalizes_to_nfc(inner, where);
    return any;
  }
  throw UserError("{}: the normalizer {} is not supported (expected none or NFC)", where, type);
}

// tokenizer.json's added tokens, then what tokenizer_config.json adds to them.
std::vector<AddedToken> all_added_tokens(const json& description, const BpeModel& model,
                                         const TokenizerConfig& config, const std::string& where) {
  std::vector<AddedToken> tokens;
  const auto known = [&](const std::string& text) {
    return std::any_of(tokens.begin(), tokens.end(),
                       [&](const auto& token) { return token.content == text; });
  };
  const auto add = [&](const AddedToken& token) {
    const auto in_model = model.id_of_spelling(token.content);
    if (in_model && *in_model != token.id) {
      throw UserError("{}: the added token '{}' has id {}, but {} in the vocabulary", where, token.content,
                      token.id, *in_model);
    }
    tokens.push_back(token);
  };
  if (const auto list = description.find("added_tokens"); list != description.end() && list->is_array()) {
    for (const json& token : *list) add(added_token_from_json(token.at("id").get<int64_t>(), token));
  }
  for (const AddedToken& token : config.added_tokens) {
    if (!known(token.content)) add(token);
  }
  for (const std::string& text : config.special_tokens) {
    if (known(text)) continue;
    const auto id = model.id_of_spelling(text);
    if (!id) {
      throw UserError(
          "{}: the special token '{}' of tokenizer_config.json is neither in the vocabulary nor among the "
          "added tokens",
          where, text);
    }
    tokens.push_back({.id = *id, .content = text, .special = true});
  }
  return tokens;
}

// What one thread needs to encode. Kept between calls for the cache's sake.
struct Worker {
  Regex::Scratch regex;
  BpeModel::Scratch merging;
  StringMap<std::vector<int32_t>> cache;  // word -> ids
  std::vector<int32_t> uncached;
};

// Workers that no thread is using: at most as many as threads ever encoded at once.
class WorkerPool {
 public:
  class Lease {
   public:
    explicit Lease(WorkerPool& pool) : pool_(pool) {
      const std::lock_guard lock(pool_.mutex_);
      if (pool_.idle_.empty()) {
        worker_ = std::make_unique<Worker>();
      } else {
        worker_ = std::move(pool_.idle_.back());
        pool_.idle_.pop_back();
      }
    }
    ~Lease() {
      const std::lock_guard lock(pool_.mutex_);
      pool_.idle_.push_back(std::move(worker_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Worker& operator*() const { return *worker_; }

   private:
    WorkerPool& pool_;
    std::unique_ptr<Worker> worker_;
  };

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> idle_;
};

class ByteBpeTokenizer final : public Tokenizer {
 public:
  ByteBpeTokenizer(const json& description, const std::string& where, const TokenizerConfig& config)
      : nfc_(normalizes_to_nfc(description.value("normalizer", json()), where)),
        model_(description.at("model"), where),
        added_(
            all_added_tokens(description, model_, config, where),
            [this](std::string_view text) { return nfc_ ? to_nfc(text) : std::string(text); }, where),
        pre_tokenizer_(description.value("pre_tokenizer", json()), where) {
    vocab_size_ = model_.size();
    for (const AddedToken& token : added_.all()) vocab_size_ = std::max(vocab_size_, token.id + 1);
    if (config.bos_token) bos_ = token_id(*config.bos_token);
    if (config.eos_token) eos_ = token_id(*config.eos_token);
    decide_bos(leading_token(description.value("post_processor", json()), where), config, where);
    chat_template_ = config.chat_template;
    fingerprint_ = make_fingerprint(description.value("pre_tokenizer", json()));
  }

  std::vector<int64_t> encode(std::string_view text, bool parse_special) const override {
    std::string repaired;
    if (!is_valid_utf8(text)) text = repaired = repair_utf8(text);
    const WorkerPool::Lease lease(workers_);
    Worker& worker = *lease;
    std::vector<int64_t> ids;
    ids.reserve(text.size() / 3);
    added_.cut(text, false, parse_special, worker.regex,
               [&](std::string_view section, const AddedToken* token) {
                 if (token != nullptr) return ids.push_back(token->id);
                 std::string normalized;
                 if (nfc_) section = normalized = to_nfc(section);
                 encode_section(section, parse_special, worker, ids);
               });
    return ids;
  }

  std::string token_bytes(int64_t token, bool keep_special) const override {
    if (const AddedToken* added = added_.find(token)) {
      return added->special && !keep_special ? "" : added->content;
    }
    return token >= 0 && token < model_.size() ? model_.bytes(token) : "";
  }

  int64_t vocab_size() const override { return vocab_size_; }
  std::string fingerprint() const override { return fingerprint_; }

  std::optional<int64_t> token_id(std::string_view token) const override {
    if (const AddedToken* added = added_.find(token)) return added->id;
    return model_.id_of_bytes(token);
  }

 private:
  void encode_section(std::string_view text, bool parse_special, Worker& worker,
                      std::vector<int64_t>& ids) const {
    added_.cut(text, true, parse_special, worker.regex,
               [&](std::string_view section, const AddedToken* token) {
                 if (token != nullptr) return ids.push_back(token->id);
                 pre_tokenizer_.split(section, worker.regex, [&](std::string_view word) {
                   const std::vector<int32_t>& found = encode_word(word, worker);
                   ids.insert(ids.end(), found.begin(), found.end());
                 });
               });
  }

  // Valid until the next call.
  const std::vector<int32_t>& encode_word(std::string_view word, Worker& worker) const {
    if (word.size() > kLongestCachedWord) {
      worker.uncached.clear();
      model_.encode(word, worker.merging, worker.uncached);
      return worker.uncached;
    }
    if (const auto found = worker.cache.find(word); found != worker.cache.end()) return found->second;
    if (worker.cache.size() >= kMostCachedWords) worker.cache.clear();
    std::vector<int32_t>& ids = worker.cache[std::string(word)];
    model_.encode(word, worker.merging, ids);
    return ids;
  }

  // transformers lets tokenizer_config.json's add_bos_token overrule the post-processor.
  void decide_bos(std::optional<int64_t> leading, const TokenizerConfig& config, const std::string& where) {
    if (config.add_eos && eos_) {
      throw UserError("{}: add_eos_token in tokenizer_config.json is not supported; set it to false", where);
    }
    adds_bos_ = config.add_bos ? *config.add_bos && bos_ : leading.has_value();
    if (!config.add_bos && leading) bos_ = leading;
  }

  std::string make_fingerprint(const json& pre_tokenizer) const {
    base::Hasher hasher;
    hasher.update(fmt::format("byte-level BPE 1, nfc {}, bos {} {}\n", nfc_, adds_bos_, bos_.value_or(-1)));
    hasher.update(pre_tokenizer.dump());
    model_.hash_into(hasher);
    added_.hash_into(hasher);
    return hasher.digest();
  }

  bool nfc_;
  BpeModel model_;
  AddedTokens added_;
  PreTokenizer pre_tokenizer_;
  int64_t vocab_size_ = 0;
  std::string fingerprint_;
  mutable WorkerPool workers_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_bpe_tokenizer(const json& description, const std::filesystem::path& path,
                                                   const TokenizerConfig& config) {
  return std::make_unique<ByteBpeTokenizer>(description, path.string(), config);
}

}  // namespace ee::tokenizer
