#include "bpe_tokenizer.h"

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>

#include "bpe_model.h"
#include "ee/base/error.h"
#include "ee/base/hash.h"
#include "normalizer.h"
#include "post_processor.h"
#include "pre_tokenizer.h"
#include "token_decoder.h"
#include "utf8.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using nlohmann::json;

constexpr const char* kVisibleSpace = "\u2581";
constexpr std::size_t kLongestCachedWord = 64;
constexpr std::size_t kMostCachedWords = 1 << 17;

// The description's added tokens and what tokenizer_config.json says beside it. Texts are looked up, so a
// role that was given to a text which no vocabulary has matches nothing.
class AddedTokenList {
 public:
  AddedTokenList(const BpeModel& model, const std::string& where) : model_(model), where_(where) {}

  // One that is listed already takes the later flags.
  void put(AddedToken token) {
    if (const auto in_model = model_.id_of_spelling(token.content)) token.id = *in_model;
    const auto same = [&](const AddedToken& known) { return known.content == token.content; };
    if (const auto known = std::ranges::find_if(tokens_, same); known != tokens_.end()) {
      token.id = known->id;
      *known = std::move(token);
      return;
    }
    if (token.id >= 0 && token.id < model_.size() && !model_.id_of_spelling(token.content) &&
        !model_.bytes(token.id).empty()) {
      throw UserError("{}: the added token '{}' has id {}, which is '{}' in the vocabulary", where_,
                      token.content, token.id, model_.bytes(token.id));
    }
    tokens_.push_back(std::move(token));
  }

  void put_special(const std::string& text) {
    const auto same = [&](const AddedToken& known) { return known.content == text; };
    if (const auto known = std::ranges::find_if(tokens_, same); known != tokens_.end()) return;
    if (const auto id = model_.id_of_spelling(text)) {
      tokens_.push_back({.id = *id, .content = text, .special = true});
    }
  }

  std::vector<AddedToken> take() { return std::move(tokens_); }

 private:
  const BpeModel& model_;
  const std::string& where_;
  std::vector<AddedToken> tokens_;
};

std::vector<AddedToken> all_added_tokens(const json& description, const BpeModel& model,
                                         const TokenizerConfig& config, const std::string& where) {
  AddedTokenList tokens(model, where);
  if (const auto list = description.find("added_tokens"); list != description.end() && list->is_array()) {
    for (const json& token : *list) {
      tokens.put(added_token_from_json(token.at("id").get<int64_t>(), token));
    }
  }
  for (const AddedToken& token : config.added_tokens) tokens.put(token);
  for (const auto& [name, text] : config.roles) {
    if (text && !text->empty()) tokens.put_special(*text);
  }
  for (const std::string& text : config.extra_special_tokens) {
    if (!text.empty()) tokens.put_special(text);
  }
  return tokens.take();
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

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(const json& description, const std::string& where, const TokenizerConfig& config)
      : normalizer_(part(description, "normalizer"), where),
        pre_tokenizer_(part(description, "pre_tokenizer"), where),
        model_(description.at("model"), pre_tokenizer_.byte_level() ? Alphabet::bytes : Alphabet::characters,
               where),
        added_(
            all_added_tokens(description, model_, config, where),
            [this](std::string_view text) {
              Regex::Scratch scratch;
              return normalizer_.apply(text, scratch);
            },
            where) {
    if (!pre_tokenizer_.byte_level()) read_decoder(part(description, "decoder"), where);
    vocab_size_ = model_.size();
    for (const AddedToken& token : added_.all()) vocab_size_ = std::max(vocab_size_, token.id + 1);
    decide_ends(tokens_around_text(part(description, "post_processor"), where), config);
    chat_template_ = config.chat_template;
    fingerprint_ = make_fingerprint(description);
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
                 const bool first = section.data() == text.data();
                 std::string normalized;
                 if (!normalizer_.changes_nothing()) {
                   section = normalized = normalizer_.apply(section, worker.regex);
                 }
                 encode_section(section, first, parse_special, worker, ids);
               });
    return ids;
  }

  std::string token_bytes(int64_t token, bool keep_special) const override {
    if (const AddedToken* added = added_.find(token)) {
      return added->special && !keep_special ? "" : added->content;
    }
    if (token < 0 || token >= model_.size()) return "";
    return decoder_ ? decoder_->bytes(model_.bytes(token)) : model_.bytes(token);
  }

  int64_t vocab_size() const override { return vocab_size_; }
  std::string fingerprint() const override { return fingerprint_; }

  std::optional<int64_t> token_id(std::string_view token) const override {
    if (const AddedToken* added = added_.find(token)) return added->id;
    if (!decoder_) return model_.id_of_bytes(token);
    // Spaces are as the pre-tokenizer or the normalizer leaves them: visible.
    std::string spelling;
    for (const char byte : token) byte == ' ' ? spelling += kVisibleSpace : spelling += byte;
    return model_.id_of_spelling(spelling);
  }

 private:
  static json part(const json& description, const char* name) { return description.value(name, json()); }

  void read_decoder(const json& decoder, const std::string& where) {
    using FirstSpaces = TokenDecoder::FirstSpaces;
    decoder_.emplace(decoder, where);
    drops_first_space_ = decoder_->first_spaces() != FirstSpaces::kept;
    drops_first_spaces_ = decoder_->first_spaces() == FirstSpaces::all_of_first_token_dropped;
  }

  void encode_section(std::string_view text, bool first, bool parse_special, Worker& worker,
                      std::vector<int64_t>& ids) const {
    added_.cut(text, true, parse_special, worker.regex,
               [&](std::string_view section, const AddedToken* token) {
                 if (token != nullptr) return ids.push_back(token->id);
                 const bool begins = first && section.data() == text.data();
                 pre_tokenizer_.split(section, begins, worker.regex, [&](std::string_view word) {
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

  // The post-processor's tokens are the BOS and EOS of a text even where a role names another.
  void decide_ends(const AroundText& around, const TokenizerConfig& config) {
    const auto of_role = [&](const char* name) {
      const auto text = config.role(name);
      return text ? token_id(*text) : std::nullopt;
    };
    bos_ = around.before ? around.before : of_role("bos_token");
    eos_ = around.behind ? around.behind : of_role("eos_token");
    adds_bos_ = bos_ && (around.before || config.add_bos);
    adds_eos_ = eos_ && (around.behind || config.add_eos);
  }

  std::string make_fingerprint(const json& description) const {
    base::Hasher hasher;
    hasher.update(
        fmt::format("BPE 2, bos {} {}, eos {}\n", adds_bos_, bos_.value_or(-1), adds_eos_ ? *eos_ : -1));
    hasher.update(part(description, "normalizer").dump() + part(description, "pre_tokenizer").dump());
    model_.hash_into(hasher);
    added_.hash_into(hasher);
    return hasher.digest();
  }

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  BpeModel model_;
  AddedTokens added_;
  std::optional<TokenDecoder> decoder_;  // none: the vocabulary is spelled in bytes
  int64_t vocab_size_ = 0;
  std::string fingerprint_;
  mutable WorkerPool workers_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_bpe_tokenizer(const json& description, const std::string& where,
                                              const TokenizerConfig& config) {
  return std::make_unique<BpeTokenizer>(description, where, config);
}

}  // namespace ee::tokenizer
