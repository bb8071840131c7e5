// What the bytes of a token are: the `decoder` of tokenizer.json, for vocabularies spelled in characters.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ee::tokenizer {

class TokenDecoder {
 public:
  // How much of the space that encoding put in front of a text decoding takes away again.
  enum class FirstSpaces { kept, one_dropped, all_of_first_token_dropped };

  // `description` is made of Replace, ByteFallback, Fuse, Strip of one space at the start, and Metaspace.
  // UserError with `where` names anything else.
  TokenDecoder(const nlohmann::json& description, const std::string& where);

  std::string bytes(std::string_view spelling) const;
  FirstSpaces first_spaces() const { return first_spaces_; }

 private:
  void add(const nlohmann::json& description, const std::string& where);
  void add_strip(const nlohmann::json& description, const std::string& where);

  std::vector<std::pair<std::string, std::string>> replacements_;  // from, to
  bool byte_fallback_ = false;                                     // "<0x0A>" is that byte
  bool fused_ = false;                                             // what follows sees the whole text
  FirstSpaces first_spaces_ = FirstSpaces::kept;
};

}  // namespace ee::tokenizer
