#include "chat_template_files.h"

#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/text.h"
#include "tokenizer_config.h"

namespace ee::tokenizer {
namespace fs = std::filesystem;

using base::UserError;
using nlohmann::json;

namespace {

using Named = std::map<std::string, std::string>;

json read_if_there(const fs::path& path) {
  return fs::exists(path) ? read_json_object(path) : json::object();
}

Named templates_in_files(const fs::path& folder) {
  Named found;
  if (fs::exists(folder / "chat_template.jinja")) {
    found["default"] = base::read_text_file(folder / "chat_template.jinja");
  }
  const fs::path more = folder / "additional_chat_templates";
  if (!fs::is_directory(more)) return found;
  for (const auto& entry : fs::directory_iterator(more)) {
    if (entry.path().extension() == ".jinja") found[entry.path().stem()] = base::read_text_file(entry.path());
  }
  return found;
}

// The value of `chat_template` in a JSON file.
Named templates_in_json(const json& object, const fs::path& path) {
  const auto value = object.find("chat_template");
  if (value == object.end() || value->is_null()) return {};
  if (value->is_string()) return {{"default", value->get<std::string>()}};
  if (!value->is_array() && !value->is_object()) {
    throw UserError("{}: chat_template is {}, expected a text or a list of named templates", path.string(),
                    value->type_name());
  }
  Named found;
  if (value->is_object()) {
    for (const auto& [name, text] : value->items()) found[name] = text.get<std::string>();
    return found;
  }
  for (const json& entry : *value) found[entry.at("name")] = entry.at("template").get<std::string>();
  return found;
}

std::string text_of_token(const json& token) {
  if (token.is_string()) return token.get<std::string>();
  return token.is_object() && token.contains("content") ? token.at("content").get<std::string>() : "";
}

// Named tokens: bos_token and its kin, and those that a model adds (image_token). null takes a name back.
void add_variables(const json& object, std::map<std::string, std::string>& variables) {
  for (const auto& [key, value] : object.items()) {
    if (!key.ends_with("_token")) continue;
    if (value.is_null()) variables.erase(key);
    if (const std::string text = text_of_token(value); !text.empty()) variables[key] = text;
  }
  const auto extra = object.find("extra_special_tokens");
  if (extra == object.end() || !extra->is_object()) return;
  for (const auto& [key, value] : extra->items()) variables[key] = text_of_token(value);
}

}  // namespace

ChatTemplate read_chat_template(const fs::path& folder) {
  const fs::path config_path = folder / "tokenizer_config.json", old_path = folder / "chat_template.json";
  const json config = read_if_there(config_path);
  ChatTemplate chat;
  try {
    Named found = templates_in_files(folder);
    if (found.empty()) found = templates_in_json(config, config_path);
    if (found.empty()) found = templates_in_json(read_if_there(old_path), old_path);
    if (const auto chosen = found.find("default"); chosen != found.end()) {
      chat.source = chosen->second;
    } else if (!found.empty()) {
      std::vector<std::string> names;
      for (const auto& [name, text] : found) names.push_back(name);
      chat.why_none = fmt::format("{} has the chat templates {}, but none named default", folder.string(),
                                  base::join(names, ", "));
    }
    add_variables(config, chat.variables);
    if (!config.contains("added_tokens_decoder")) {
      add_variables(read_if_there(folder / "special_tokens_map.json"), chat.variables);
    }
  } catch (const json::exception& error) {
    throw UserError("{}: the chat template or the special tokens are not as transformers writes them: {}",
                    folder.string(), error.what());
  }
  return chat;
}

}  // namespace ee::tokenizer
