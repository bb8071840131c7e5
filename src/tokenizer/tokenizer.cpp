#include "ee/tokenizer/tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bpe_tokenizer.h"
#include "ee/base/error.h"
#include "sentencepiece_model.h"
#include "tokenizer_config.h"
#include "transformers_class.h"
#include "utf8.h"

namespace ee::tokenizer {
namespace {

using nlohmann::json;

bool has_byte_level(const json& part) {
  if (!part.is_object()) return false;
  if (part.value("type", "") == "ByteLevel") return true;
  for (const char* list : {"pretokenizers", "decoders"}) {
    const auto inner = part.find(list);
    if (inner != part.end() && std::ranges::any_of(*inner, has_byte_level)) return true;
  }
  return false;
}

std::unique_ptr<Tokenizer> load_json(const std::filesystem::path& path, TokenizerConfig config) {
  json description = read_json_object(path);
  const bool byte_level = has_byte_level(description.value("pre_tokenizer", json())) ||
                          has_byte_level(description.value("decoder", json()));
  const TransformersClass which = transformers_class(config, byte_level);
  add_default_roles(which, config);
  if (which != TransformersClass::as_written && config.lists_added_tokens)
    description["added_tokens"] = nullptr;
  rebuild_as(which, config, description);
  config.add_bos = which == TransformersClass::code_llama;
  config.add_eos = false;
  return make_bpe_tokenizer(description, path.string(), config);
}

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& path, TokenizerConfig config) {
  const TransformersClass which = transformers_class(config, false);
  add_default_roles(which, config);
  const json description = describe_sentencepiece(path, which, config);
  config.add_bos |= which == TransformersClass::code_llama;
  return make_bpe_tokenizer(description, path.string(), config);
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::load(const std::filesystem::path& folder) {
  const std::filesystem::path json_path = folder / "tokenizer.json", model_path = folder / "tokenizer.model";
  const TokenizerConfig config = read_tokenizer_config(folder);
  const bool has_json = std::filesystem::exists(json_path);
  if (!has_json && !std::filesystem::exists(model_path)) {
    throw base::UserError("{} has no tokenizer: expected tokenizer.json or tokenizer.model in it",
                          folder.string());
  }
  try {
    return has_json ? load_json(json_path, config) : load_sentencepiece(model_path, config);
  } catch (const json::exception& error) {
    throw base::UserError("{} is not as Hugging Face's library writes it: {}",
                          (has_json ? json_path : model_path).string(), error.what());
  }
}

std::string Tokenizer::decode(const std::vector<int64_t>& tokens, bool keep_special) const {
  std::string bytes;
  std::size_t dropped_most = drops_first_space_ ? 1 : 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    bytes += token_bytes(tokens[i], keep_special);
    if (drops_first_spaces_ && i == 0) dropped_most = bytes.size();
  }
  bytes.erase(0, std::min({bytes.find_first_not_of(' '), dropped_most, bytes.size()}));
  return is_valid_utf8(bytes) ? bytes : repair_utf8(bytes);
}

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Character character = decode_utf8(rest);
    if (character.truncated) break;
    rest.remove_prefix(character.length);
  }
  const std::size_t whole = pending_.size() - rest.size();
  const std::string text = repair_utf8(std::string_view(pending_).substr(0, whole));
  pending_.erase(0, whole);
  return text;
}

std::string Utf8Stream::finish() {
  const std::string text = repair_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace ee::tokenizer
