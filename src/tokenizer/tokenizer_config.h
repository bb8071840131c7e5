// What stands beside tokenizer.json or tokenizer.model: tokenizer_config.json, special_tokens_map.json,
// added_tokens.json, the chat template (chat_template_files.h), and config.json's model_type.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "added_tokens.h"
#include "ee/tokenizer/chat.h"

namespace ee::tokenizer {

struct TokenizerConfig {
  // "bos_token", "eos_token", "pad_token", ... and their texts; none for a role that a file gives to no
  // token.
  std::map<std::string, std::optional<std::string>> roles;
  std::vector<std::string> extra_special_tokens;  // texts of special tokens without a role
  std::vector<AddedToken> added_tokens;           // with ids
  bool lists_added_tokens = false;                // there is an added_tokens_decoder
  bool add_bos = false, add_eos = false;  // transformers heeds them only if there is no tokenizer.json
  std::optional<bool> add_prefix_space;
  std::optional<bool> legacy;  // Llama: the first word of every section gets a space, not only the very first
  std::string tokenizer_class;  // "" if not given
  std::string model_type;       // of config.json, "" if there is none: transformers' choice depends on it
  ChatTemplate chat_template;

  std::optional<std::string> role(const std::string& name) const;
};

// All files are optional. UserError naming the file that is broken.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

// Parses a JSON file; UserError with its name if it is not JSON or not an object.
nlohmann::json read_json_object(const std::filesystem::path& path);

}  // namespace ee::tokenizer
