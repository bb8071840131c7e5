#include "ee/config/model_config.h"

#include <algorithm>
#include <array>

#include "attention_window.h"
#include "ee/base/text.h"
#include "json_fields.h"
#include "rope_config.h"

namespace ee::config {

namespace {

struct Family {
  const char* model_type;
  const char* architecture;
};
constexpr std::array<Family, 3> kFamilies{
    {{"llama", "LlamaForCausalLM"}, {"mistral", "MistralForCausalLM"}, {"qwen2", "Qwen2ForCausalLM"}}};

const Family& find_family(const std::string& model_type, const std::string& origin) {
  std::vector<std::string> names;
  for (const auto& family : kFamilies) {
    if (model_type == family.model_type) return family;
    names.emplace_back(family.model_type);
  }
  throw base::UserError("{}: model_type \"{}\" is not supported; supported are {}", origin, model_type,
                        base::join(names, ", "));
}

// A key must have one of `supported` values, or be absent.
std::string read_choice(const JsonFields& fields, const char* key, std::vector<std::string> supported) {
  const std::string value = fields.find<std::string>(key).value_or("");
  if (!value.empty() && std::find(supported.begin(), supported.end(), value) == supported.end())
    fields.problem(key,
                   fmt::format("\"{}\" is not supported; supported: {}", value, base::join(supported, ", ")));
  return value;
}

void read_sizes(const JsonFields& fields, ModelConfig& config, bool known_kv_heads) {
  config.vocab_size = fields.size("vocab_size", SizeLimits::kVocabulary);
  config.hidden_size = fields.size("hidden_size", SizeLimits::kHidden);
  config.intermediate_size = fields.size("intermediate_size", SizeLimits::kIntermediate);
  config.layers = fields.size("num_hidden_layers", SizeLimits::kLayers);
  config.heads = fields.size("num_attention_heads", SizeLimits::kHeads);
  config.max_positions = fields.size("max_position_embeddings", SizeLimits::kPositions);
  // transformers has family-specific defaults for an absent key, and the number of heads for null. Files of
  // all families but the oldest of llama have the key.
  if (!known_kv_heads && !fields.object().contains("num_key_value_heads"))
    fields.problem("num_key_value_heads", "required, but missing; expected integer");
  const int64_t heads = std::max<int64_t>(config.heads, 1);
  config.kv_heads = fields.size_or("num_key_value_heads", heads, SizeLimits::kHeads);
  config.head_dim =
      fields.size_or("head_dim", std::max<int64_t>(config.hidden_size / heads, 1), SizeLimits::kHeadDim);
  config.rms_norm_eps = fields.positive("rms_norm_eps");
  if (config.rms_norm_eps > 1)
    fields.problem("rms_norm_eps", fmt::format("must be at most 1, got {}", config.rms_norm_eps));
}

void check_sizes(const JsonFields& fields, const ModelConfig& config) {
  const bool derived = !fields.find<int64_t>("head_dim");
  if (derived && config.hidden_size % config.heads != 0)
    fields.problem("hidden_size",
                   fmt::format("{} is not a multiple of num_attention_heads {}, and there is no head_dim",
                               config.hidden_size, config.heads));
  else if (config.head_dim % 2 != 0)
    fields.problem("head_dim", fmt::format("must be even for rotary embeddings, got {}", config.head_dim));
  if (config.heads % config.kv_heads != 0)
    fields.problem("num_key_value_heads",
                   fmt::format("must divide num_attention_heads {}, got {}", config.heads, config.kv_heads));
}

void read_biases(const JsonFields& fields, ModelConfig& config) {
  if (config.model_type == "qwen2") config.qkv_bias = true;
  if (config.model_type != "llama") return;  // the other families have no keys for it
  config.qkv_bias = config.output_bias = fields.find<bool>("attention_bias").value_or(false);
  config.mlp_bias = fields.find<bool>("mlp_bias").value_or(false);
}

// One id or a list of them; nullopt when absent or null.
std::optional<std::vector<int64_t>> read_tokens(const JsonFields& fields, const char* key,
                                                int64_t vocab_size) {
  const auto found = fields.object().find(key);
  if (found == fields.object().end() || found->is_null()) return std::nullopt;
  std::vector<int64_t> tokens;
  if (found->is_array())
    tokens = fields.find<std::vector<int64_t>>(key).value();
  else
    tokens.push_back(fields.find<int64_t>(key).value());
  for (const int64_t token : tokens)
    if ((token < 0 || token >= vocab_size) && !fields.known_problem(key))
      fields.problem(key, fmt::format("token {} is not in the vocabulary of {}", token, vocab_size));
  return tokens;
}

void read_special_tokens(const JsonFields& fields, ModelConfig& config) {
  if (const auto bos = read_tokens(fields, "bos_token_id", config.vocab_size); bos && !bos->empty())
    config.bos_token = bos->front();
  if (const auto eos = read_tokens(fields, "eos_token_id", config.vocab_size)) config.eos_tokens = *eos;
}

}  // namespace

ModelConfig read_model_config_file(const std::filesystem::path& file) {
  const Json object = read_object(file);
  Problems problems(file.string());
  const JsonFields fields(object, "", problems);
  ModelConfig config;
  config.model_type = fields.get<std::string>("model_type");
  problems.throw_if_any();
  find_family(config.model_type, file.string());  // keys of an unknown family mean nothing to us
  if (object.contains("quantization_config") && !object["quantization_config"].is_null())
    fields.problem("quantization_config", "is not supported; use the unquantized model, or a GGUF file");

  read_sizes(fields, config, config.model_type == "llama");
  read_choice(fields, "hidden_act", {"silu"});
  read_biases(fields, config);
  config.tie_embeddings =
      fields.find<bool>("tie_word_embeddings").value_or(false);  // as in all three families
  config.dtype = read_choice(fields, object.contains("dtype") ? "dtype" : "torch_dtype",
                             {"float32", "bfloat16", "float16"});
  config.rope = read_rope(object, problems);
  problems.throw_if_any();  // what follows compares values that are right by themselves

  check_sizes(fields, config);
  read_attention_window(fields, config);
  read_special_tokens(fields, config);
  problems.throw_if_any();
  return config;
}

ModelConfig read_model_config(const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder))
    throw base::UserError("{} is not a folder; a model is a Hugging Face folder with config.json",
                          folder.string());
  ModelConfig config = read_model_config_file(folder / "config.json");
  const auto generation_file = folder / "generation_config.json";
  if (!std::filesystem::exists(generation_file)) return config;
  const Json object = read_object(generation_file);
  Problems problems(generation_file.string());
  read_special_tokens(JsonFields(object, "", problems), config);
  problems.throw_if_any();
  return config;
}

std::string write_model_config(const ModelConfig& config) {
  const Family& family = find_family(config.model_type, "write_model_config");
  const bool is_llama = config.model_type == "llama";
  EE_CHECK(is_llama
               ? config.qkv_bias == config.output_bias
               : config.qkv_bias == (config.model_type == "qwen2") && !config.output_bias && !config.mlp_bias,
           "config.json has no keys for these biases of {}", config.model_type);
  Json json = {{"architectures", {family.architecture}}, {"model_type", config.model_type}};
  json["vocab_size"] = config.vocab_size;
  json["hidden_size"] = config.hidden_size;
  json["intermediate_size"] = config.intermediate_size;
  json["num_hidden_layers"] = config.layers;
  json["num_attention_heads"] = config.heads;
  json["num_key_value_heads"] = config.kv_heads;
  json["head_dim"] = config.head_dim;
  json["hidden_act"] = "silu";
  json["max_position_embeddings"] = config.max_positions;
  json["rms_norm_eps"] = config.rms_norm_eps;
  json["tie_word_embeddings"] = config.tie_embeddings;
  if (is_llama) json["attention_bias"] = config.qkv_bias, json["mlp_bias"] = config.mlp_bias;
  write_attention_window(config, json);
  write_rope(config.rope, json);
  json["bos_token_id"] = config.bos_token ? Json(*config.bos_token) : Json();
  json["eos_token_id"] = config.eos_tokens.empty()       ? Json()
                         : config.eos_tokens.size() == 1 ? Json(config.eos_tokens.front())
                                                         : Json(config.eos_tokens);
  if (!config.dtype.empty()) json["torch_dtype"] = config.dtype;
  return print(json);
}

}  // namespace ee::config
