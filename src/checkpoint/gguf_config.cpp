#include <algorithm>

#include "ee/base/error.h"
#include "end_of_turn.h"
#include "gguf_import.h"
#include "gguf_rope.h"
#include "llama_metadata.h"

namespace ee::checkpoint {
using base::UserError;
using config::ModelConfig;
using config::SizeLimits;
using format::GgufFile;

namespace {

// Before anything is made for each layer, or for each layer in a list.
void check_has_layers(const GgufFile& file, const LlamaMetadata& llama, int64_t layers) {
  const std::string last = fmt::format("blk.{}.attn_norm.weight", layers - 1);
  if (!file.tensors().contains(last))
    llama.refuse("block_count", fmt::format("is {}, but there is no tensor {}", layers, last));
}

void read_sizes(const LlamaMetadata& llama, ModelConfig& config) {
  const int64_t layers = config.layers;
  config.hidden_size = llama.size("embedding_length", SizeLimits::kHidden);
  config.intermediate_size = llama.size_of_all("feed_forward_length", layers, SizeLimits::kIntermediate);
  config.heads = llama.size_of_all("attention.head_count", layers, SizeLimits::kHeads);
  config.kv_heads = llama.size_of_all_or("attention.head_count_kv", config.heads, layers, SizeLimits::kHeads);
  config.head_dim = llama.size_or(
      "attention.key_length", std::max<int64_t>(config.hidden_size / config.heads, 1), SizeLimits::kHeadDim);
  config.max_positions = llama.size("context_length", SizeLimits::kPositions);
  config.rms_norm_eps = llama.number("attention.layer_norm_rms_epsilon");
  if (config.rms_norm_eps > 1)
    llama.refuse("attention.layer_norm_rms_epsilon",
                 fmt::format("is {}, expected at most 1", config.rms_norm_eps));

  if (config.head_dim % 2 != 0) llama.refuse("attention.key_length", "must be even");
  for (const char* key : {"attention.value_length", "rope.dimension_count"})
    if (const int64_t size = llama.size_or(key, config.head_dim, SizeLimits::kHeadDim);
        size != config.head_dim)
      llama.refuse(key, fmt::format("is {}, expected the head's width {}", size, config.head_dim));
  if (config.heads % config.kv_heads != 0)
    llama.refuse("attention.head_count_kv",
                 fmt::format("is {}, which does not divide the {} heads", config.kv_heads, config.heads));
}

int64_t vocabulary_of(const GgufFile& file) {
  const format::GgufTensor& embedding = file.at("token_embd.weight");
  const int64_t rows = embedding.shape.size() == 2 ? embedding.shape.front() : 0;
  if (rows < 1 || rows > SizeLimits::kVocabulary)
    throw UserError("tensor {} in {} is no matrix of 1 to {} rows", embedding.name,
                    file.path_of(embedding).string(), SizeLimits::kVocabulary);
  return rows;
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
  config.layers = llama.size("block_count", SizeLimits::kLayers);
  check_has_layers(file, llama, config.layers);
  read_sizes(llama, config);
  config.vocab_size = vocabulary_of(file);
  config.tie_embeddings =
      !file.tensors().contains("output.weight");  // the file is whole: all shards are read
  config.rope = gguf_rope_config(file, llama, config.head_dim);
  read_biases(file, config);
  config.bos_token = find_special_token(file, "bos", config.vocab_size);
  config.eos_tokens = end_of_turn_tokens(file, config.vocab_size);
  return config;
}

}  // namespace ee::checkpoint
