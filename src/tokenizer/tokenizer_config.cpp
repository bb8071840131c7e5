#include "tokenizer_config.h"

#include <algorithm>
#include <charconv>

#include "chat_template_files.h"
#include "ee/base/error.h"
#include "ee/base/file.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using nlohmann::json;

// A token with a role is written as its text or as an object with `content`.
std::optional<std::string> token_text(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content")) return value.at("content").get<std::string>();
  return {};
}

void read_roles(const json& object, TokenizerConfig& config) {
  for (const char* role :
       {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}) {
    if (const auto value = object.find(role); value != object.end()) config.roles[role] = token_text(*value);
  }
  for (const char* list : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto values = object.find(list);
    if (values == object.end() || !values->is_structured()) continue;
    for (const auto& value : *values) {
      if (const auto text = token_text(value)) config.extra_special_tokens.push_back(*text);
    }
  }
}

void read_added_tokens(const json& object, const std::filesystem::path& path, TokenizerConfig& config) {
  const auto decoder = object.find("added_tokens_decoder");
  if (decoder == object.end()) return;
  config.lists_added_tokens = true;
  for (const auto& [key, description] : decoder->items()) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0) {
      throw UserError("{}: added_tokens_decoder has the key '{}', expected a token id", path.string(), key);
    }
    config.added_tokens.push_back(added_token_from_json(id, description));
  }
}

void read_main_file(const std::filesystem::path& path, TokenizerConfig& config) {
  const json object = read_json_object(path);
  read_roles(object, config);
  read_added_tokens(object, path, config);
  const auto flag = [&](const char* key) {
    const auto value = object.find(key);
    return value != object.end() && value->is_boolean() ? std::optional(value->get<bool>()) : std::nullopt;
  };
  config.add_bos = flag("add_bos_token").value_or(false);
  config.add_eos = flag("add_eos_token").value_or(false);
  config.legacy = flag("legacy");
  config.add_prefix_space = flag("add_prefix_space");
  if (const auto name = object.find("tokenizer_class"); name != object.end() && name->is_string()) {
    config.tokenizer_class = name->get<std::string>();
  }
}

// Older folders: {"<text>": id, ...}. Special are those with a role.
void read_old_added_tokens(const std::filesystem::path& path, TokenizerConfig& config) {
  const json object = read_json_object(path);
  for (const auto& [content, id] : object.items()) {
    const bool special =
        std::ranges::find(config.extra_special_tokens, content) != config.extra_special_tokens.end() ||
        std::ranges::any_of(config.roles, [&](const auto& role) { return role.second == content; });
    config.added_tokens.push_back(
        {.id = id.get<int64_t>(), .content = content, .special = special, .normalized = !special});
  }
}

void read_model_config(const std::filesystem::path& path, TokenizerConfig& config) {
  const json object = read_json_object(path);
  const auto text = [&](const char* key) {
    const auto value = object.find(key);
    return value != object.end() && value->is_string() ? value->get<std::string>() : "";
  };
  config.model_type = text("model_type");
  if (config.tokenizer_class.empty()) config.tokenizer_class = text("tokenizer_class");
}

}  // namespace

json read_json_object(const std::filesystem::path& path) {
  json object;
  try {
    object = json::parse(base::read_text_file(path));
  } catch (const json::exception& error) {
    throw UserError("{} is not JSON: {}", path.string(), error.what());
  }
  if (!object.is_object())
    throw UserError("{}: expected a JSON object, found {}", path.string(), object.type_name());
  return object;
}

std::optional<std::string> TokenizerConfig::role(const std::string& name) const {
  const auto found = roles.find(name);
  return found == roles.end() ? std::nullopt : found->second;
}

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder) {
  TokenizerConfig config;
  const auto read = [&](const char* name, auto&& reader) {
    const std::filesystem::path path = folder / name;
    if (!std::filesystem::exists(path)) return;
    try {
      reader(path);
    } catch (const json::exception& error) {
      throw UserError("{}: {}", path.string(), error.what());
    }
  };
  read("tokenizer_config.json", [&](const auto& path) { read_main_file(path, config); });
  // As in transformers: the older files count only if the newer list is missing.
  if (!config.lists_added_tokens) {
    read("special_tokens_map.json", [&](const auto& path) { read_roles(read_json_object(path), config); });
    read("added_tokens.json", [&](const auto& path) { read_old_added_tokens(path, config); });
  }
  read("config.json", [&](const auto& path) { read_model_config(path, config); });
  config.chat_template = read_chat_template(folder);
  return config;
}

}  // namespace ee::tokenizer
