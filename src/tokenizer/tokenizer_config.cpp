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
  const auto add = [&](const std::optional<std::string>& text) {
    auto& all = config.special_tokens;
    if (text && std::find(all.begin(), all.end(), *text) == all.end()) all.push_back(*text);
  };
  for (const char* role :
       {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}) {
    const auto value = object.find(role);
    if (value == object.end()) continue;
    const auto text = token_text(*value);
    if (std::string_view(role) == "bos_token" && !config.bos_token) config.bos_token = text;
    if (std::string_view(role) == "eos_token" && !config.eos_token) config.eos_token = text;
    add(text);
  }
  for (const char* list : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto values = object.find(list);
    if (values == object.end() || !values->is_array()) continue;
    for (const auto& value : *values) add(token_text(value));
  }
}

void read_added_tokens(const json& object, const std::filesystem::path& path, TokenizerConfig& config) {
  const auto decoder = object.find("added_tokens_decoder");
  if (decoder == object.end()) return;
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
  // As in transformers: naming either of the two overrides what tokenizer.json's post-processor adds.
  const auto flag = [&](const char* key) {
    const auto value = object.find(key);
    return value != object.end() && value->is_boolean() ? std::optional(value->get<bool>()) : std::nullopt;
  };
  const auto add_bos = flag("add_bos_token"), add_eos = flag("add_eos_token");
  if (add_bos || add_eos) config.add_bos = add_bos.value_or(false);
  config.add_eos = add_eos.value_or(false);
  config.legacy = flag("legacy");
  config.add_prefix_space = flag("add_prefix_space");
  if (const auto name = object.find("tokenizer_class"); name != object.end() && name->is_string()) {
    config.tokenizer_class = name->get<std::string>();
  }
}

// Older folders: {"<text>": id, ...}. Listed in added_tokens_decoder as well, or else special.
void read_old_added_tokens(const std::filesystem::path& path, TokenizerConfig& config) {
  const json object = read_json_object(path);
  for (const auto& [content, id] : object.items()) {
    const auto same = [&](const AddedToken& token) { return token.content == content; };
    if (std::any_of(config.added_tokens.begin(), config.added_tokens.end(), same)) continue;
    config.added_tokens.push_back({.id = id.get<int64_t>(), .content = content, .special = true});
  }
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
  read("special_tokens_map.json", [&](const auto& path) { read_roles(read_json_object(path), config); });
  read("added_tokens.json", [&](const auto& path) { read_old_added_tokens(path, config); });
  config.chat_template = read_chat_template(folder);
  return config;
}

}  // namespace ee::tokenizer
