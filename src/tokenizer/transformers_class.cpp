#include "transformers_class.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "known_regexes.h"

namespace ee::tokenizer {
namespace {

using nlohmann::json;

constexpr const char* kVisibleSpace = "\u2581";

constexpr std::pair<const char*, TransformersClass> kClasses[] = {
    {"LlamaTokenizer", TransformersClass::llama},      {"CodeLlamaTokenizer", TransformersClass::code_llama},
    {"GemmaTokenizer", TransformersClass::gemma},      {"GPT2Tokenizer", TransformersClass::gpt2},
    {"GPTNeoXTokenizer", TransformersClass::gpt_neox}, {"Qwen2Tokenizer", TransformersClass::qwen2},
};

json byte_level(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"use_regex", use_regex}};
}

json metaspace(const char* scheme) {
  return {
      {"type", "Metaspace"}, {"replacement", kVisibleSpace}, {"prepend_scheme", scheme}, {"split", false}};
}

json sentencepiece_decoder(bool strips) {
  json steps = {{{"type", "Replace"}, {"pattern", {{"String", kVisibleSpace}}}, {"content", " "}},
                {{"type", "ByteFallback"}},
                {{"type", "Fuse"}}};
  if (strips) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

void set_model(json& description, bool sentencepiece, const json& unknown) {
  json& model = description["model"];
  model["byte_fallback"] = sentencepiece;
  model["fuse_unk"] = sentencepiece;
  model["unk_token"] = unknown;
  model["ignore_merges"] = false;
}

json role(const TokenizerConfig& config, const char* name) {
  const auto text = config.role(name);
  return text ? json(*text) : json();
}

void rebuild_metaspace(const TokenizerConfig& config, bool code_llama, json& description) {
  const bool prefix = config.add_prefix_space.value_or(true);
  const bool every = config.legacy.value_or(false) && !code_llama;
  description["normalizer"] = nullptr;
  description["pre_tokenizer"] = metaspace(!prefix ? "never" : every ? "always" : "first");
  description["decoder"] = sentencepiece_decoder(prefix || code_llama);
  set_model(description, true, code_llama ? role(config, "unk_token") : json());
}

void rebuild_gemma(const TokenizerConfig& config, json& description) {
  description["normalizer"] = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kVisibleSpace}};
  description["pre_tokenizer"] = nullptr;  // it splits at spaces, of which the normalizer left none
  description["decoder"] = sentencepiece_decoder(false);
  set_model(description, true, role(config, "unk_token"));
}

void rebuild_byte_level(const TokenizerConfig& config, bool nfc, bool qwen2, json& description) {
  json words = byte_level(config.add_prefix_space.value_or(false), !qwen2);
  if (qwen2) {
    const json split = {{"type", "Split"},
                        {"pattern", {{"Regex", kQwen2Regex}}},
                        {"behavior", "Isolated"},
                        {"invert", false}};
    words = {{"type", "Sequence"}, {"pretokenizers", {split, std::move(words)}}};
  }
  description["normalizer"] = nfc ? json{{"type", "NFC"}} : json();
  description["pre_tokenizer"] = std::move(words);
  set_model(description, false, nullptr);
}

}  // namespace

TransformersClass transformers_class(const TokenizerConfig& config, bool byte_level) {
  if (config.model_type == "mistral") return TransformersClass::as_written;
  if (config.model_type == "qwen2") return TransformersClass::qwen2;
  std::string name = config.tokenizer_class;
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  if (name == "LlamaTokenizer" && byte_level) return TransformersClass::as_written;
  for (const auto& [known, which] : kClasses) {
    if (name == known) return which;
  }
  return TransformersClass::as_written;
}

void rebuild_as(TransformersClass which, const TokenizerConfig& config, json& description) {
  switch (which) {
    case TransformersClass::as_written:
      return;
    case TransformersClass::llama:
      return rebuild_metaspace(config, false, description);
    case TransformersClass::code_llama:
      return rebuild_metaspace(config, true, description);
    case TransformersClass::gemma:
      return rebuild_gemma(config, description);
    case TransformersClass::gpt2:
      return rebuild_byte_level(config, false, false, description);
    case TransformersClass::gpt_neox:
      description["post_processor"] = nullptr;  // it adds what add_bos_token says, which is not read here
      return rebuild_byte_level(config, true, false, description);
    case TransformersClass::qwen2:
      return rebuild_byte_level(config, true, true, description);
  }
}

void add_default_roles(TransformersClass which, TokenizerConfig& config) {
  using Defaults = std::array<std::pair<const char*, const char*>, 4>;
  static constexpr const char* kEnd = "<|endoftext|>";
  const auto fill = [&](const Defaults& defaults) {
    for (const auto& [name, text] : defaults) {
      if (name == nullptr || !config.roles.try_emplace(name, text).second) continue;
      config.chat_template.variables[name] = text;
    }
  };
  switch (which) {
    case TransformersClass::as_written:
      return;
    case TransformersClass::llama:
    case TransformersClass::code_llama:
      return fill({{{"unk_token", "<unk>"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}}});
    case TransformersClass::gemma:
      return fill(
          {{{"unk_token", "<unk>"}, {"bos_token", "<bos>"}, {"eos_token", "<eos>"}, {"pad_token", "<pad>"}}});
    case TransformersClass::gpt2:
    case TransformersClass::gpt_neox:
      return fill({{{"unk_token", kEnd}, {"bos_token", kEnd}, {"eos_token", kEnd}}});
    case TransformersClass::qwen2:
      return fill({{{"unk_token", kEnd}, {"eos_token", kEnd}, {"pad_token", kEnd}}});
  }
}

}  // namespace ee::tokenizer
