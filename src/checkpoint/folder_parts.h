// What the parts of this room share about model folders.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "check_integrity.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/checkpoint/tensor_source.h"
#include "ee/format/safetensors.h"

namespace ee::checkpoint {

inline constexpr const char* kExitsConfigFile = "ee_config.json";
inline constexpr const char* kExitsFile = "exits.safetensors";
inline constexpr const char* kSingleFile = "model.safetensors";
inline constexpr const char* kIndexFile = "model.safetensors.index.json";
inline constexpr const char* kGatesFile = "gates.safetensors";
inline constexpr const char* kCheckedFile = ".ee_checked.json";  // see check_memory.h
inline constexpr const char* kEmbedding = "model.embed_tokens.weight";
inline constexpr const char* kHead = "lm_head.weight";

// The backbone's tensors without a copy: valid while `folder` lives, read-only, no RoPE table. Tensors of
// another dtype than the embedding's are converted copies.
model::Backbone alias_backbone(const ModelFolder& folder);

// How gates.safetensors names an exit's gate, and its shape.
std::string gate_name(int64_t layer);
std::vector<int64_t> gate_shape(const config::ModelConfig& config);

// What new exits of this backbone are stored in: its own dtype, but f32 for f16 (see attach.h).
at::ScalarType new_exit_dtype(const ModelFolder& folder);

// For write_safetensors(): the source's elements, contiguous on the CPU, in `dtype`; asked for and converted
// when their turn comes.
format::TensorToWrite tensor_to_write(const TensorSource& source, at::ScalarType dtype);

// What ee_config.json says of the backbone that exits belong to.
struct BackboneProof {
  std::string fingerprint;
  TensorChecksums checksums;
  std::vector<CheckedFile> read = {};  // for these checksums; need not be read again to be compared with them
};

// Reads every byte, unless the folder's own ee_config.json has the checksums.
BackboneProof prove_backbone(const ModelFolder& folder);

// Writes exits.safetensors (`tensors`, in dtype `stored`) and ee_config.json into `folder`, one in the
// making.
void write_exits(const std::filesystem::path& folder, const config::ModelConfig& config,
                 std::vector<config::ExitSpec> specs, const TensorSources& tensors, BackboneProof backbone,
                 at::ScalarType stored);

// The tensors that `exits` own, which must live until they are written.
TensorSources exit_sources(const config::ModelConfig& config, std::vector<exits::ExitHead>& exits);

std::vector<config::ExitSpec> specs_of(const std::vector<exits::ExitHead>& exits);

// Fills `target`, a folder in the making, with all of `source` but its exits: weights are hard-linked where
// possible (or left out), the small files around them copied.
void link_backbone(const ModelFolder& source, const std::filesystem::path& target, bool weights = true);

// Writes model.safetensors, all `tensors` in dtype `stored`, into `folder`, one in the making.
BackboneProof write_backbone(const std::filesystem::path& folder, const TensorSources& tensors,
                             at::ScalarType stored);

}  // namespace ee::checkpoint
