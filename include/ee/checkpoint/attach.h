// From a pretrained model (Hugging Face folder or GGUF file) to a model folder with exits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "ee/checkpoint/integrity.h"
#include "ee/config/exit_spec.h"
#include "ee/config/model_config.h"
#include "ee/format/dtype.h"

namespace ee::checkpoint {

// The structure of a source: a Hugging Face folder, or a GGUF file of architecture "llama".
config::ModelConfig read_source_config(const std::filesystem::path& source);

struct AttachOptions {
  std::filesystem::path source;
  std::filesystem::path output;             // must not exist; appears complete or not at all
  std::vector<config::ExitSpec> exits;      // checked against the source's layers
  uint64_t seed = 1234;                     // of randomly initialized exits
  std::optional<format::DType> dtype = {};  // GGUF only: what it is dequantized to (default f32)
};

// What attach_exits() refuses without a look at weights: a source that is not there, an output that exists or
// cannot be created, exits that contradict themselves, a dtype for a folder.
void check_attach(const AttachOptions& options);

// A Hugging Face source keeps its files byte for byte (exits that it already has are replaced); a GGUF source
// becomes config.json, generation_config.json, model.safetensors and tokenizer files, one tensor at a time.
// Exits are stored in the backbone's dtype; in f32 for an f16 backbone, because that is what it computes in.
void attach_exits(const AttachOptions& options);

// A GGUF file as a model without exits, in f32: written into `folder`, a folder in the making.
void write_gguf_model(const std::filesystem::path& gguf, const std::filesystem::path& folder);

// Writes `output` as `folder` with every exit at `position`: "before layer L" becomes "after layer L-1" and
// back, tensors unchanged under the new layer's name. UserError: mlp exits (they read inside the layer), a
// layer out of range, two exits at one layer.
void move_exits(const std::filesystem::path& folder, config::ExitPosition position,
                const std::filesystem::path& output, Check check = Check::unless_remembered);

}  // namespace ee::checkpoint
