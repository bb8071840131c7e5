// What stands beside tokenizer.json or tokenizer.model: tokenizer_config.json, special_tokens_map.json,
// added_tokens.json, and the chat template (chat_template_files.h).
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "added_tokens.h"
#include "ee/tokenizer/chat.h"

namespace ee::tokenizer {

struct TokenizerConfig {
  std::optional<std::string> bos_token, eos_token;  // their texts
  std::vector<std::string> special_tokens;  // texts of all tokens that have a role (also pad, unk, ...)
  std::vector<AddedToken> added_tokens;     // with ids
  std::optional<bool> add_bos;              // only if the file says so
  bool add_eos = false;
  std::optional<bool> add_prefix_space;
  std::optional<bool> legacy;  // Llama: the first word of every section gets a space, not only the very first
  std::string tokenizer_class;  // "" if not given
  ChatTemplate chat_template;
};

// All files are optional. UserError naming the file that is broken.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

// Parses a JSON file; UserError with its name if it is not JSON or not an object.
nlohmann::json read_json_object(const std::filesystem::path& path);

}  // namespace ee::tokenizer
