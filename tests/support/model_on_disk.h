// A tiny random model as a Hugging Face folder with a byte-level tokenizer, made from nothing.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "ee/config/model_config.h"
#include "ee/format/safetensors.h"
#include "support/tiny_model.h"

namespace ee::test {

// GPT-2's alphabet: each byte as one printable character; token id = byte. 256 is <|endoftext|>.
inline nlohmann::json byte_vocabulary() {
  const auto utf8 = [](int code) {
    return code < 0x80
               ? std::string{static_cast<char>(code)}
               : std::string{static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
  };
  auto vocabulary = nlohmann::json::object();
  for (int byte = 0, next = 256; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    vocabulary[utf8(printable ? byte : next++)] = byte;
  }
  return vocabulary;
}

inline void write_byte_tokenizer(const std::filesystem::path& folder) {
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const nlohmann::json tokenizer = {{"version", "1.0"},
                                    {"truncation", nullptr},
                                    {"padding", nullptr},
                                    {"added_tokens",
                                     {{{"id", 256},
                                       {"content", "<|endoftext|>"},
                                       {"single_word", false},
                                       {"lstrip", false},
                                       {"rstrip", false},
                                       {"normalized", false},
                                       {"special", true}}}},
                                    {"normalizer", nullptr},
                                    {"pre_tokenizer", byte_level},
                                    {"post_processor", nullptr},
                                    {"decoder", byte_level},
                                    {"model",
                                     {{"type", "BPE"},
                                      {"dropout", nullptr},
                                      {"unk_token", nullptr},
                                      {"continuing_subword_prefix", ""},
                                      {"end_of_word_suffix", ""},
                                      {"fuse_unk", false},
                                      {"byte_fallback", false},
                                      {"vocab", byte_vocabulary()},
                                      {"merges", nlohmann::json::array()}}}};
  std::ofstream(folder / "tokenizer.json") << tokenizer;
  std::ofstream(folder / "tokenizer_config.json")
      << R"({"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"})";
}

// A random model of `config` with the byte tokenizer's vocabulary, f32.
inline void write_model(const std::filesystem::path& folder, config::ModelConfig config, uint64_t seed = 1) {
  config.vocab_size = 257;
  config.eos_tokens = {256};
  auto backbone = tiny_backbone(config, seed);
  std::vector<format::TensorToWrite> tensors;
  model::visit_backbone(
      backbone, [&](const std::string& name, const std::vector<int64_t>& shape, at::Tensor& member) {
        tensors.push_back({name, format::DType::f32, shape, [member](const auto& sink) {
                             sink({static_cast<const std::byte*>(member.const_data_ptr()), member.nbytes()});
                           }});
      });
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << config::write_model_config(config);
  format::write_safetensors(folder / "model.safetensors", tensors);
  write_byte_tokenizer(folder);
}

inline void write_tiny_model(const std::filesystem::path& folder, uint64_t seed = 1) {
  write_model(folder, tiny_config(), seed);
}

}  // namespace ee::test
