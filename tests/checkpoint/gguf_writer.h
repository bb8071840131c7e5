// Small GGUF files (version 3, f32 tensors) for tests, written from the format's description.
#pragma once

#include <fstream>
#include <string>
#include <vector>

#include "folders.h"

namespace ee::checkpoint {

class GgufWriter {
 public:
  void set(const std::string& key, const std::string& value) { add(key, 8, encode(value)); }
  void set(const std::string& key, const char* value) { set(key, std::string(value)); }
  void set(const std::string& key, uint32_t value) { add(key, 4, encode(value)); }
  void set(const std::string& key, uint64_t value) { add(key, 10, encode(value)); }
  void set(const std::string& key, float value) { add(key, 6, encode(value)); }
  void set(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes = encode(uint32_t{8}) + encode(uint64_t{values.size()});
    for (const auto& value : values) bytes += encode(value);
    add(key, 9, bytes);
  }
  void set(const std::string& key, const std::vector<int32_t>& values) {
    std::string bytes = encode(uint32_t{5}) + encode(uint64_t{values.size()});
    for (const int32_t value : values) bytes += encode(value);
    add(key, 9, bytes);
  }
  void erase(const std::string& key) { metadata_.erase(key); }

  std::map<std::string, at::Tensor> tensors;  // contiguous f32
  std::map<std::string, uint32_t> types;      // ggml's number of a tensor that says to be something else

  void write(const fs::path& path) const {
    std::string header =
        "GGUF" + encode(uint32_t{3}) + encode(uint64_t{tensors.size()}) + encode(uint64_t{metadata_.size()});
    for (const auto& [key, value] : metadata_) header += value;
    std::string data;
    for (const auto& [name, tensor] : tensors) {
      header += encode(name) + encode(static_cast<uint32_t>(tensor.dim()));
      for (int64_t i = tensor.dim() - 1; i >= 0; --i) header += encode(static_cast<uint64_t>(tensor.size(i)));
      header += encode(types.contains(name) ? types.at(name) : uint32_t{0}) + encode(uint64_t{data.size()});
      data.append(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
      pad(data);
    }
    pad(header);
    std::ofstream(path, std::ios::binary) << header << data;
  }

 private:
  template <typename Number>
  static std::string encode(Number value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
  }
  static std::string encode(const std::string& text) { return encode(uint64_t{text.size()}) + text; }
  static void pad(std::string& bytes) { bytes.resize((bytes.size() + 31) / 32 * 32, '\0'); }
  void add(const std::string& key, uint32_t type, const std::string& value) {
    metadata_[key] = encode(key) + encode(type) + value;
  }

  std::map<std::string, std::string> metadata_;  // key -> encoded pair
};

// Row 2i of a head in the file is row i of Hugging Face's first half, row 2i+1 row i of the second.
inline at::Tensor interleave_naively(const at::Tensor& rows, int64_t head_dim) {
  at::Tensor result = rows.clone();
  for (int64_t row = 0; row < rows.size(0); ++row) {
    const int64_t head = row / head_dim, in_head = row % head_dim;
    const int64_t half = in_head / (head_dim / 2), pair = in_head % (head_dim / 2);
    result.select(0, head * head_dim + 2 * pair + half).copy_(rows.select(0, row));
  }
  return result;
}

// What llama.cpp's converter makes of `backbone`, with a tokenizer of bytes.
inline GgufWriter gguf_of(const model::Backbone& backbone) {
  const config::ModelConfig& c = backbone.config;
  GgufWriter gguf;
  gguf.set("general.architecture", "llama");
  const auto size = [&](const char* key, int64_t value) {
    gguf.set(std::string("llama.") + key, static_cast<uint32_t>(value));
  };
  size("embedding_length", c.hidden_size);
  size("feed_forward_length", c.intermediate_size);
  size("block_count", c.layers);
  size("attention.head_count", c.heads);
  size("attention.head_count_kv", c.kv_heads);
  size("context_length", c.max_positions);
  gguf.set("llama.attention.layer_norm_rms_epsilon", static_cast<float>(c.rms_norm_eps));
  gguf.set("llama.rope.freq_base", static_cast<float>(c.rope.theta));

  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(byte_spelling(byte));
  for (int extra = 256; extra < c.vocab_size; ++extra) tokens.push_back(fmt::format("<|{}|>", extra));
  std::vector<int32_t> types(tokens.size(), 1);
  std::fill(types.begin() + 256, types.end(), 3);
  gguf.set("tokenizer.ggml.model", "gpt2");
  gguf.set("tokenizer.ggml.pre", "smollm");
  gguf.set("tokenizer.ggml.tokens", tokens);
  gguf.set("tokenizer.ggml.token_type", types);
  gguf.set("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  tokens[255] = "ab";  // what the merge makes
  gguf.set("tokenizer.ggml.tokens", tokens);
  gguf.set("tokenizer.ggml.eos_token_id", uint32_t{2});

  const std::pair<const char*, const char*> names[] = {{"input_layernorm", "attn_norm"},
                                                       {"self_attn.q_proj", "attn_q"},
                                                       {"self_attn.k_proj", "attn_k"},
                                                       {"self_attn.v_proj", "attn_v"},
                                                       {"self_attn.o_proj", "attn_output"},
                                                       {"post_attention_layernorm", "ffn_norm"},
                                                       {"mlp.gate_proj", "ffn_gate"},
                                                       {"mlp.up_proj", "ffn_up"},
                                                       {"mlp.down_proj", "ffn_down"},
                                                       {"model.embed_tokens", "token_embd"},
                                                       {"model.norm", "output_norm"},
                                                       {"lm_head", "output"},
                                                       {"model.layers", "blk"}};
  for (const auto& [hf_name, weight] : backbone_tensors(backbone)) {
    std::string name = hf_name;
    at::Tensor tensor = weight;
    if (name.find("q_proj") != std::string::npos || name.find("k_proj") != std::string::npos)
      tensor = interleave_naively(tensor, c.head_dim);
    for (const auto& [from, to] : names)
      if (const size_t at = name.find(from); at != std::string::npos)
        name.replace(at, std::string(from).size(), to);
    gguf.tensors[name] = tensor;
  }
  return gguf;
}

}  // namespace ee::checkpoint
