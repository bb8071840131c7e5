// The structure of a decoder-only model, as Hugging Face's config.json describes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace ee::config {

struct RopeConfig {
  enum class Scaling { none, linear, llama3 };
  double theta = 10000.0;
  Scaling scaling = Scaling::none;
  double factor = 1.0;                 // linear, llama3
  double low_freq_factor = 1.0;        // llama3
  double high_freq_factor = 4.0;       // llama3
  int64_t original_max_positions = 0;  // llama3

  bool operator==(const RopeConfig&) const = default;
};

// Names follow config.json. Biases are per projection group because families differ (qwen2: only q, k, v).
struct ModelConfig {
  std::string model_type;  // "llama", "mistral", "qwen2"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;
  double rms_norm_eps = 1e-5;
  bool tie_embeddings = false;
  bool qkv_bias = false;
  bool output_bias = false;  // attention's o_proj
  bool mlp_bias = false;
  RopeConfig rope;
  std::optional<int64_t> bos_token;
  std::vector<int64_t> eos_tokens;
  std::string dtype;  // as config.json says ("float32", "bfloat16", "float16" or "")
  // How many tokens each of `window_layers` (1-based, ascending) sees, its own included; 0 and none where all
  // layers see the whole text. Attention here has no windows, which makes no difference to a text that fits
  // into one: text_limit() is what keeps texts so short.
  int64_t window = 0;
  std::vector<int64_t> window_layers = {};

  bool operator==(const ModelConfig&) const = default;
};

// What sizes may be at most: far beyond any model, and so small that the bytes of no matrix overflow.
struct SizeLimits {
  static constexpr int64_t kVocabulary = 1 << 24;
  static constexpr int64_t kHidden = 1 << 20;
  static constexpr int64_t kIntermediate = 1 << 24;
  static constexpr int64_t kLayers = 1 << 16;
  static constexpr int64_t kHeads = 1 << 16;
  static constexpr int64_t kHeadDim = 1 << 16;
  static constexpr int64_t kPositions = (int64_t{1} << 31) - 1;
};

// The longest text that is computed as the model means it, and what sets the limit, for messages:
// "max_position_embeddings", or "sliding_window ...".
struct TextLimit {
  int64_t tokens;
  std::string reason;
};
TextLimit text_limit(const ModelConfig& config);

// Reads and checks config.json (and eos/bos of generation_config.json beside it, if there). Both spellings of
// RoPE are understood. UserError naming file and key: missing or mistyped keys, unsupported model_type,
// activation, rope type or type of layer, sizes that contradict each other or are beyond SizeLimits.
ModelConfig read_model_config(const std::filesystem::path& folder);

// The same of one file in the format of config.json, under any name.
ModelConfig read_model_config_file(const std::filesystem::path& file);

// config.json text for a model that did not come with one (GGUF). read_model_config() gives `config` back.
std::string write_model_config(const ModelConfig& config);

}  // namespace ee::config
