// A GGUF file of architecture "llama" as a Hugging Face folder.
#pragma once

#include <filesystem>
#include <vector>

#include "ee/config/model_config.h"
#include "ee/format/dtype.h"
#include "ee/format/gguf.h"
#include "ee/format/safetensors.h"

namespace ee::checkpoint {

// The structure from the metadata and the names of the tensors. UserError: another architecture, experts,
// rope scaling that config.json cannot express, missing or contradictory keys.
config::ModelConfig gguf_model_config(const format::GgufFile& file);

// What a GGUF file becomes as a Hugging Face folder. Made from the header alone, which is where everything is
// refused that can be: a tensor that is missing, of another shape or of a type that cannot be dequantized.
class GgufImport {
 public:
  // `dtype`: f32, bf16 or f16. `file` must live as long.
  GgufImport(const format::GgufFile& file, format::DType dtype);

  const config::ModelConfig& config() const { return config_; }

  // Writes config.json, generation_config.json, model.safetensors and the tokenizer's files into `folder`, a
  // folder in the making. One piece of one tensor is in memory at a time.
  void write(const std::filesystem::path& folder) const;

 private:
  const format::GgufFile& file_;
  config::ModelConfig config_;
  std::vector<format::TensorToWrite> tensors_;
};

}  // namespace ee::checkpoint
