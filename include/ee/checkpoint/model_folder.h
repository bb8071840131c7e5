// A model on disk: a Hugging Face folder, with or without ee_config.json and exits.safetensors, and with or
// without the exits' gates in gates.safetensors ("exits.<layer>.gate.weight", f32). Opening reads
// headers only; loading reads the slices asked for. Anything missing, extra, truncated or misshaped is a
// UserError naming it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ee/checkpoint/integrity.h"
#include "ee/checkpoint/tensor_source.h"
#include "ee/config/exit_spec.h"
#include "ee/config/model_config.h"
#include "ee/config/tune_options.h"
#include "ee/exits/exit_head.h"
#include "ee/model/backbone.h"
#include "ee/model/tensor_table.h"

namespace ee::checkpoint {

class TensorFiles;  // the safetensors files of a folder as one map from name to bytes

class ModelFolder {
 public:
  // Checks config.json, the safetensors headers against the tensor table, and, when there are exits,
  // ee_config.json, exits.safetensors' header, the backbone's fingerprint and, as `check` says, the checksum
  // of every tensor of backbone, exits and gates.
  static ModelFolder open(const std::filesystem::path& path, Check check = Check::unless_remembered);

  // The same without a look at exits, should there be any: for attaching new ones.
  static ModelFolder open_backbone(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const config::ModelConfig& config() const { return config_; }
  bool has_exits() const { return exits_.has_value(); }
  const config::ExitsConfig& exits() const;  // UserError "has no exits; attach some with ee-convert attach"
  const TensorFiles& backbone_files() const { return *backbone_files_; }
  const TensorFiles& exit_files() const { return *exit_files_; }  // only with exits
  bool has_gates() const { return gate_files_ != nullptr; }       // all exits have one, or none
  const TensorFiles& gate_files() const { return *gate_files_; }  // only with gates
  Integrity integrity() const { return integrity_; }
  // Of every byte of the backbone; of samples of them (fingerprint()) where the folder has no checksums.
  std::string backbone_digest() const;  // only with exits

 private:
  std::filesystem::path path_;
  config::ModelConfig config_;
  std::optional<config::ExitsConfig> exits_;
  std::shared_ptr<TensorFiles> backbone_files_, exit_files_, gate_files_;
  Integrity integrity_ = Integrity::no_checksums;
};

struct LoadOptions {
  at::Device device = at::kCPU;
  config::Precision precision = config::Precision::stored;  // f16 files compute in f32 on CPU
  int64_t first_layer = 1;                                  // layers first_layer..last_layer
  int64_t last_layer = -1;                                  // -1: the model's last one
  bool embedding = true, head = true;                       // whether the rank embeds tokens, needs logits
  parallel::TensorRanks ranks = {};                         // reads this rank's slices only
};

// The layers asked for, embedding, final norm and head. Tensors are copies: the folder may be closed after.
model::Backbone load_backbone(const ModelFolder& folder, const LoadOptions& options);

// What the folder says of its exits at `layers` (empty: all), in ascending order. UserError: one it does not
// have.
std::vector<config::ExitSpec> exits_at(const ModelFolder& folder, const std::vector<int64_t>& layers);

// The exits at `layers` (empty: all), in ascending order, their own tensors in `dtype` (this tensor rank's
// slices), shared ones bound to the backbone, gates whole.
std::vector<exits::ExitHead> load_exits(const ModelFolder& folder, const model::Backbone& backbone,
                                        const std::vector<int64_t>& layers, at::ScalarType dtype);

// The names and shapes of the tensors that these exits own, in the order of the file.
std::vector<model::TensorEntry> exit_table(const config::ModelConfig& config,
                                           const std::vector<config::ExitSpec>& specs);

// What the folder's exits are stored in; what new ones would be when they own no tensor.
at::ScalarType stored_exit_dtype(const ModelFolder& folder);

// The dtype a Precision means for this folder on this device.
at::ScalarType compute_dtype(const ModelFolder& folder, config::Precision precision, at::Device device);

// XXH3-128 over every tensor's name, dtype and shape, and up to 4 KiB from the start, middle and end of its
// bytes: cheap enough for every load, and another fine-tune of the same model never matches. What it does not
// see, the checksums do.
std::string fingerprint(const TensorFiles& backbone_files);

// Writes into the folder what calibration found: the exits' temperatures and gates (all have one or none),
// and quality levels. While gates change the folder has no levels, so that none can meet another's gates.
void write_calibration(const ModelFolder& folder, const std::vector<exits::ExitHead>& exits,
                       const std::vector<config::QualityLevel>& quality);

// A complete new model folder, without gates and quality levels: `source`'s backbone, tokenizer and other
// files linked or copied byte for byte, plus the exits (`tensors`: all that `specs` own, asked for in order,
// stored as `stored`). Appears complete or not at all; UserError if `target` exists.
// `backbone`: in place of the source's weights, all tensors of its tensor table (asked for before the exits,
// stored in its dtype); empty: the source's.
void write_model_folder(const ModelFolder& source, const std::vector<config::ExitSpec>& specs,
                        const TensorSources& tensors, const std::filesystem::path& target,
                        at::ScalarType stored, const TensorSources& backbone = {});
void write_model_folder(const ModelFolder& source, std::vector<exits::ExitHead>& exits,
                        const std::filesystem::path& target, at::ScalarType stored);

}  // namespace ee::checkpoint
