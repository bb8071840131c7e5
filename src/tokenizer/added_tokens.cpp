#include "added_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/hash.h"

namespace ee::tokenizer {
namespace {

// What Rust's \w is, which Hugging Face uses for `single_word`.
constexpr const char* kWordStart = R"(\A[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])";
constexpr const char* kWordEnd = R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]\z)";

// The last character alone decides whether a text ends with a word: no need to search through all of it.
std::string_view last_character(std::string_view text) {
  std::size_t at = text.size();
  while (at > 0 && (static_cast<uint8_t>(text[--at]) & 0xC0) == 0x80) {
  }
  return text.substr(at);
}

}  // namespace

AddedToken added_token_from_json(int64_t id, const nlohmann::json& description) {
  return {.id = id,
          .content = description.at("content").get<std::string>(),
          .special = description.value("special", false),
          .lstrip = description.value("lstrip", false),
          .rstrip = description.value("rstrip", false),
          .normalized = description.value("normalized", !description.value("special", false)),
          .single_word = description.value("single_word", false)};
}

void AddedTokens::Trie::insert(std::string_view text, const AddedToken& token) {
  starts_[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto [child, is_new] =
        children_.try_emplace(uint64_t{node} << 8 | static_cast<uint8_t>(byte), nodes_);
    if (is_new) ++nodes_;
    node = child->second;
  }
  ends_.insert_or_assign(node, &token);
}

std::size_t AddedTokens::Trie::next_start(std::string_view text, std::size_t from) const {
  while (from < text.size() && !starts_[static_cast<uint8_t>(text[from])]) ++from;
  return from;
}

const AddedToken* AddedTokens::Trie::longest(std::string_view text, std::size_t at,
                                             std::size_t& length) const {
  const AddedToken* found = nullptr;
  uint32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    const auto child = children_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[i]));
    if (child == children_.end()) break;
    node = child->second;
    if (const auto end = ends_.find(node); end != ends_.end()) {
      found = end->second;
      length = i + 1 - at;
    }
  }
  return found;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens,
                         const std::function<std::string(std::string_view)>& normalize,
                         std::string_view where)
    : tokens_(std::move(tokens)),
      word_start_(kWordStart, where),
      word_end_(kWordEnd, where),
      space_start_(R"(\A\s+)", where),
      space_end_(R"(\A\s\z)", where) {
  for (const AddedToken& token : tokens_) {
    if (token.id < 0 || token.id >= kMostTokens) {
      throw base::UserError("{}: the added token '{}' has the impossible id {}", where, token.content,
                            token.id);
    }
    const bool is_new = by_id_.emplace(token.id, &token).second;
    const bool is_new_text = by_content_.emplace(token.content, &token).second;
    if (!is_new || !is_new_text) {
      throw base::UserError("{}: the added token '{}' with id {} is listed twice", where, token.content,
                            token.id);
    }
    const std::string text = token.normalized ? normalize(token.content) : token.content;
    if (!text.empty()) (token.normalized ? normalized_ : raw_).insert(text, token);
  }
}

void AddedTokens::cut(std::string_view text, bool normalized, bool parse_special, Regex::Scratch& scratch,
                      const Section& section) const {
  const Trie& trie = normalized ? normalized_ : raw_;
  std::size_t done = 0;  // everything before it has been handed out
  std::size_t at = trie.empty() ? text.size() : trie.next_start(text, 0);
  while (at < text.size()) {
    std::size_t length = 0;
    const AddedToken* token = trie.longest(text, at, length);
    std::size_t start = at, end = at + length;
    at = trie.next_start(text, token != nullptr ? end : at + 1);
    if (token == nullptr || (token->special && !parse_special)) continue;
    const std::string_view before = text.substr(0, start), behind = text.substr(end);
    if (token->single_word && ((!before.empty() && word_end_.find(last_character(before), 0, scratch)) ||
                               word_start_.find(behind, 0, scratch))) {
      continue;
    }
    if (token->lstrip) {
      while (start > done) {
        const std::string_view last = last_character(text.substr(done, start - done));
        if (!space_end_.find(last, 0, scratch)) break;
        start -= last.size();
      }
    }
    if (token->rstrip) {
      if (const auto spaces = space_start_.find(behind, 0, scratch)) end += spaces->end;
    }
    if (start > done) section(text.substr(done, start - done), nullptr);
    section(text.substr(start, end - start), token);
    done = end;
  }
  if (done < text.size()) section(text.substr(done), nullptr);
}

const AddedToken* AddedTokens::find(int64_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : found->second;
}

void AddedTokens::hash_into(base::Hasher& hasher) const {
  for (const AddedToken& token : tokens_) {
    hasher.update(fmt::format("{} {} {}{}{}{}{}\n", token.id, token.content, token.special, token.lstrip,
                              token.rstrip, token.normalized, token.single_word));
  }
}

}  // namespace ee::tokenizer
