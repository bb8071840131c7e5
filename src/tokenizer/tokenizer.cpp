#include "ee/tokenizer/tokenizer.h"

#include <nlohmann/json.hpp>

#include "byte_bpe_tokenizer.h"
#include "ee/base/error.h"
#include "sentencepiece_tokenizer.h"
#include "tokenizer_config.h"
#include "utf8.h"

namespace ee::tokenizer {
namespace {

// byte_fallback marks a SentencePiece model that was converted to tokenizer.json.
bool is_converted_sentencepiece(const nlohmann::json& description) {
  const auto model = description.find("model");
  return model != description.end() && model->is_object() &&
         (model->value("byte_fallback", false) || model->value("type", "BPE") == "Unigram");
}

std::unique_ptr<Tokenizer> load_json(const std::filesystem::path& json_path,
                                     const std::filesystem::path& model_path, const TokenizerConfig& config) {
  const nlohmann::json description = read_json_object(json_path);
  if (!is_converted_sentencepiece(description))
    return make_byte_bpe_tokenizer(description, json_path, config);
  if (!std::filesystem::exists(model_path)) {
    throw base::UserError(
        "{} describes a SentencePiece model (byte_fallback or Unigram), which is read from tokenizer.model, "
        "but there is "
        "none beside it. Copy tokenizer.model from the model's original folder",
        json_path.string());
  }
  return make_sentencepiece_tokenizer(model_path, description, config);
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::load(const std::filesystem::path& folder) {
  const std::filesystem::path json_path = folder / "tokenizer.json", model_path = folder / "tokenizer.model";
  const TokenizerConfig config = read_tokenizer_config(folder);
  if (std::filesystem::exists(json_path)) {
    try {
      return load_json(json_path, model_path, config);
    } catch (const nlohmann::json::exception& error) {
      throw base::UserError("{} is not as Hugging Face's library writes it: {}", json_path.string(),
                            error.what());
    }
  }
  if (std::filesystem::exists(model_path)) return make_sentencepiece_tokenizer(model_path, nullptr, config);
  throw base::UserError("{} has no tokenizer: expected tokenizer.json or tokenizer.model in it",
                        folder.string());
}

std::string Tokenizer::decode(const std::vector<int64_t>& tokens, bool keep_special) const {
  std::string bytes;
  for (const int64_t token : tokens) bytes += token_bytes(token, keep_special);
  if (drops_first_space_ && bytes.starts_with(' ')) bytes.erase(0, 1);
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
