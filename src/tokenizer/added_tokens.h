// Added tokens: texts that are cut out of the input before the model sees it, and become one id each. What
// `added_tokens` of tokenizer.json and `added_tokens_decoder` of tokenizer_config.json say.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "regex.h"

namespace ee::base {
class Hasher;
}

namespace ee::tokenizer {

inline constexpr int64_t kMostTokens =
    16'000'000;  // against ids that lie, not a limit of any real vocabulary

struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool special = false;
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and behind it
  bool normalized = false;   // is looked for in the normalized text
  bool single_word = false;  // not inside a word
};

AddedToken added_token_from_json(int64_t id, const nlohmann::json& description);

class AddedTokens {
 public:
  // `normalize` maps a text to its normalized form; UserError with `where` on duplicate ids.
  AddedTokens(std::vector<AddedToken> tokens, const std::function<std::string(std::string_view)>& normalize,
              std::string_view where);

  AddedTokens(AddedTokens&&) = default;  // a copy's look-ups would point into the original

  using Section = std::function<void(std::string_view text, const AddedToken* token)>;
  // Cuts `text` at the tokens with this `normalized` flag; calls back for each piece in order, with the token
  // or, for text between tokens (never empty), null. Special tokens are text unless `parse_special`.
  void cut(std::string_view text, bool normalized, bool parse_special, Regex::Scratch& scratch,
           const Section& section) const;

  const AddedToken* find(int64_t id) const;
  const AddedToken* find(std::string_view content) const;
  const std::vector<AddedToken>& all() const { return tokens_; }
  void hash_into(base::Hasher& hasher) const;

 private:
  // Finds, at a position, the longest of a set of texts.
  class Trie {
   public:
    void insert(std::string_view text, const AddedToken& token);
    std::string_view::size_type next_start(std::string_view text, std::size_t from) const;
    const AddedToken* longest(std::string_view text, std::size_t at, std::size_t& length) const;
    bool empty() const { return nodes_ == 1; }

   private:
    bool starts_[256] = {};                            // the first bytes of all texts
    std::unordered_map<uint64_t, uint32_t> children_;  // node << 8 | byte -> node
    std::unordered_map<uint32_t, const AddedToken*> ends_;
    uint32_t nodes_ = 1;
  };

  std::vector<AddedToken> tokens_;
  std::unordered_map<int64_t, const AddedToken*> by_id_;
  std::unordered_map<std::string_view, const AddedToken*> by_content_;
  Trie raw_, normalized_;
  Regex word_start_, word_end_, space_start_, space_end_;
};

}  // namespace ee::tokenizer
