#include <algorithm>
#include <cmath>
#include <numbers>

#include "ee/base/error.h"
#include "gguf_import.h"

namespace ee::checkpoint {
using base::UserError;
using config::ModelConfig;
using config::RopeConfig;
using format::GgufFile;

namespace {

constexpr const char* kRopeFactors = "rope_freqs.weight";

// The metadata below "llama.".
class LlamaMetadata {
 public:
  explicit LlamaMetadata(const GgufFile& file) : file_(file) {}

  int64_t size(const std::string& key) const { return positive(key, file_.get<int64_t>(prefix(key))); }
  int64_t size(const std::string& key, int64_t absent) const {
    const auto* value = file_.find<int64_t>(prefix(key));
    return value ? positive(key, *value) : absent;
  }
  // Stored as f32; the shortest decimal that gives the same f32 is what its author wrote (1e-5,
  // not 9.99..e-6).
  double number(const std::string& key) const { return shortest(file_.get<double>(prefix(key))); }
  double number(const std::string& key, double absent) const {
    const auto* value = file_.find<double>(prefix(key));
    return value ? shortest(*value) : absent;
  }
  std::string text(const std::string& key, const std::string& absent) const {
    const auto* value = file_.find<std::string>(prefix(key));
    return value ? *value : absent;
  }

  [[noreturn]] void refuse(const std::string& key, const std::string& problem) const {
    throw UserError("{}: {} {}", file_.path().string(), prefix(key), problem);
  }

 private:
  static std::string prefix(const std::string& key) { return "llama." + key; }
  static double shortest(double value) { return std::stod(fmt::format("{}", static_cast<float>(value))); }
  int64_t positive(const std::string& key, int64_t value) const {
    if (value < 1) refuse(key, fmt::format("is {}, expected a positive number", value));
    return value;
  }

  const GgufFile& file_;
};

// What llama.cpp's converter divides each frequency by for a Llama 3.1 model.
double llama3_factor(const RopeConfig& rope, int64_t head_dim, int64_t index) {
  const double exponent = 2.0 * static_cast<double>(index) / static_cast<double>(head_dim);
  const double wavelength = 2.0 * std::numbers::pi * std::pow(rope.theta, exponent);
  const auto original = static_cast<double>(rope.original_max_positions);
  if (wavelength < original / rope.high_freq_factor) return 1.0;
  if (wavelength > original / rope.low_freq_factor) return rope.factor;
  const double smooth =
      (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return 1.0 / ((1.0 - smooth) / rope.factor + smooth);
}

// A GGUF file has the factors themselves. All Llama 3.x models share three of the four numbers they come
// from; the fourth is the largest factor. Anything else is refused.
void read_rope_factors(const GgufFile& file, int64_t head_dim, RopeConfig& rope) {
  const format::GgufTensor& tensor = file.at(kRopeFactors);
  if (tensor.elements() != head_dim / 2)
    throw UserError("tensor {} in {} has {} elements, expected {}", kRopeFactors, file.path().string(),
                    tensor.elements(), head_dim / 2);
  std::vector<float> factors(static_cast<size_t>(tensor.elements()));
  format::dequantize(tensor, factors);

  rope.scaling = RopeConfig::Scaling::llama3;
  rope.factor = *std::max_element(factors.begin(), factors.end());
  rope.low_freq_factor = 1.0;
  rope.high_freq_factor = 4.0;
  rope.original_max_positions = 8192;
  for (size_t i = 0; i < factors.size(); ++i) {
    const double expected = llama3_factor(rope, head_dim, static_cast<int64_t>(i));
    if (!(std::abs(factors[i] - expected) <= 1e-3 * expected))
      throw UserError(
          "{}: {}[{}] is {}, but Llama 3's scaling with factor {} implies {}; convert from the original "
          "Hugging Face folder instead",
          file.path().string(), kRopeFactors, i, factors[i], rope.factor, expected);
  }
}

RopeConfig read_rope(const GgufFile& file, const LlamaMetadata& llama, int64_t head_dim) {
  RopeConfig rope;
  rope.theta = llama.number("rope.freq_base", 10000.0);
  const std::string scaling = llama.text("rope.scaling.type", "none");
  const bool has_factors = file.tensors().contains(kRopeFactors);
  if (scaling == "linear") {
    rope.scaling = RopeConfig::Scaling::linear;
    rope.factor = llama.number("rope.scaling.factor");
  } else if (scaling != "none") {
    llama.refuse("rope.scaling.type",
                 fmt::format("\"{}\" is not supported; supported: none, linear", scaling));
  } else if (const double old_key = llama.number("rope.scale_linear", 1.0); old_key != 1.0) {
    rope.scaling = RopeConfig::Scaling::linear;
    rope.factor = old_key;
  }
  if (!has_factors) return rope;
  if (rope.scaling != RopeConfig::Scaling::none)
    llama.refuse("rope.scaling.type",
                 fmt::format("\"{}\" and {} contradict each other", scaling, kRopeFactors));
  read_rope_factors(file, head_dim, rope);
  return rope;
}

void read_biases(const GgufFile& file, ModelConfig& config) {
  const auto has = [&](const char* name) { return file.tensors().contains(name); };
  config.qkv_bias = has("blk.0.attn_q.bias");
  config.output_bias = has("blk.0.attn_output.bias");
  config.mlp_bias = has("blk.0.ffn_gate.bias");
  if (config.qkv_bias != config.output_bias)
    throw UserError("{}: {} has a bias and {} has none, which a Hugging Face Llama cannot have",
                    file.path().string(), config.qkv_bias ? "attn_q" : "attn_output",
                    config.qkv_bias ? "attn_output" : "attn_q");
}

void read_special_tokens(const GgufFile& file, ModelConfig& config) {
  const auto token = [&](const char* key) -> std::optional<int64_t> {
    const auto* value = file.find<int64_t>(key);
    if (!value) return std::nullopt;
    if (*value < 0 || *value >= config.vocab_size)
      throw UserError("{}: {} is {}, but the vocabulary has {} tokens", file.path().string(), key, *value,
                      config.vocab_size);
    return *value;
  };
  config.bos_token = token("tokenizer.ggml.bos_token_id");
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (const auto id = token(key); id && (config.eos_tokens.empty() || config.eos_tokens.front() != *id))
      config.eos_tokens.push_back(*id);
}

}  // namespace

ModelConfig gguf_model_config(const GgufFile& file) {
  const auto& architecture = file.get<std::string>("general.architecture");
  if (architecture != "llama")
    throw UserError(
        "{}: general.architecture \"{}\" is not supported; supported: llama. Use the model's "
        "Hugging Face folder instead",
        file.path().string(), architecture);
  const LlamaMetadata llama(file);
  if (const auto* experts = file.find<int64_t>("llama.expert_count"); experts && *experts > 0)
    llama.refuse("expert_count", fmt::format("is {}: mixtures of experts are not supported", *experts));

  ModelConfig config;
  config.model_type = "llama";
  config.hidden_size = llama.size("embedding_length");
  config.intermediate_size = llama.size("feed_forward_length");
  config.layers = llama.size("block_count");
  config.heads = llama.size("attention.head_count");
  config.kv_heads = llama.size("attention.head_count_kv", config.heads);
  config.head_dim =
      llama.size("attention.key_length", std::max<int64_t>(config.hidden_size / config.heads, 1));
  config.max_positions = llama.size("context_length");
  config.rms_norm_eps = llama.number("attention.layer_norm_rms_epsilon");
  const format::GgufTensor& embedding = file.at("token_embd.weight");
  if (embedding.shape.size() != 2)
    throw UserError("tensor {} in {} is no matrix", embedding.name, file.path().string());
  config.vocab_size = embedding.shape.front();
  config.tie_embeddings = !file.tensors().contains("output.weight");

  if (config.head_dim % 2 != 0) llama.refuse("attention.key_length", "must be even");
  for (const char* key : {"attention.value_length", "rope.dimension_count"})
    if (const int64_t size = llama.size(key, config.head_dim); size != config.head_dim)
      llama.refuse(key, fmt::format("is {}, expected the head's width {}", size, config.head_dim));
  if (config.heads % config.kv_heads != 0)
    llama.refuse("attention.head_count_kv",
                 fmt::format("is {}, which does not divide the {} heads", config.kv_heads, config.heads));
  config.rope = read_rope(file, llama, config.head_dim);
  read_biases(file, config);
  read_special_tokens(file, config);
  return config;
}

}  // namespace ee::checkpoint
