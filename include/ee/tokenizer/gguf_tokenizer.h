// The tokenizer inside a GGUF file, written out as a Hugging Face folder has it.
#pragma once

#include <filesystem>
#include <string>

#include "ee/format/gguf.h"

namespace ee::tokenizer {

// Writes into the existing `folder`: tokenizer.json for byte-level BPE (tokenizer.ggml.model = gpt2) and
// SentencePiece (llama, gemma4), with BOS and EOS as the file says; tokenizer_config.json (BOS, EOS, padding
// and unknown token); and, if the file has a chat template, chat_template.jinja. Tokenizer::load and
// transformers' AutoTokenizer read them and give equal ids, which are llama.cpp's. UserError names the key:
// another kind of tokenizer, an unknown tokenizer.ggml.pre, lists that do not fit together.
void write_hf_tokenizer(const format::GgufFile& file, const std::filesystem::path& folder);

// transformers, and Tokenizer::load with it, read a qwen2 model (config.json's model_type) by that family's
// own rules, whatever the tokenizer's files say. UserError if the GGUF file's rules are others.
void check_gguf_model_type(const format::GgufFile& file, const std::string& model_type);

}  // namespace ee::tokenizer
