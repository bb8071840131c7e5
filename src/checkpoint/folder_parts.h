// What the parts of this room share about model folders.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/format/safetensors.h"

namespace ee::checkpoint {

inline constexpr const char* kExitsConfigFile = "ee_config.json";
inline constexpr const char* kExitsFile = "exits.safetensors";
inline constexpr const char* kEmbedding = "model.embed_tokens.weight";
inline constexpr const char* kHead = "lm_head.weight";

// The backbone's tensors without a copy: valid while `folder` lives, read-only, no RoPE table. Tensors of
// another dtype than the embedding's are converted copies.
model::Backbone alias_backbone(const ModelFolder& folder);

// What new exits of this backbone are stored in: its own dtype, but f32 for f16 (see attach.h).
at::ScalarType new_exit_dtype(const ModelFolder& folder);

// What the folder's exits are stored in; new_exit_dtype() when they own no tensor.
at::ScalarType stored_exit_dtype(const ModelFolder& folder);

// The names and shapes of the tensors that these exits own.
std::vector<model::TensorEntry> exit_table(const config::ModelConfig& config,
                                           const std::vector<config::ExitSpec>& specs);

// For write_safetensors(): `tensor`'s elements, contiguous on the CPU, in `dtype`; converted when asked for.
format::TensorToWrite tensor_to_write(const std::string& name, const at::Tensor& tensor,
                                      at::ScalarType dtype);

// Fills `target`, a folder in the making, with all of `source` but its exits: weights are hard-linked where
// possible, the small files around them copied.
void link_backbone(const ModelFolder& source, const std::filesystem::path& target);

}  // namespace ee::checkpoint
