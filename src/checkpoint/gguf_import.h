// A GGUF file of architecture "llama" as a Hugging Face folder.
#pragma once

#include <filesystem>

#include "ee/config/model_config.h"
#include "ee/format/dtype.h"
#include "ee/format/gguf.h"

namespace ee::checkpoint {

// The structure from the metadata and the names of the tensors. UserError: another architecture, experts,
// rope scaling that config.json cannot express, missing or contradictory keys.
config::ModelConfig gguf_model_config(const format::GgufFile& file);

// Writes config.json, generation_config.json, model.safetensors (`dtype`: f32, bf16 or f16) and the
// tokenizer's files into `folder`, a folder in the making. One piece of one tensor is in memory at a time.
void write_gguf_as_folder(const format::GgufFile& file, format::DType dtype,
                          const std::filesystem::path& folder);

}  // namespace ee::checkpoint
