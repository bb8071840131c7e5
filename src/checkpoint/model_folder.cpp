#include "ee/checkpoint/model_folder.h"

#include <algorithm>

#include "check_integrity.h"
#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/hash.h"
#include "ee/base/text.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/exits/exit_gate.h"
#include "folder_parts.h"
#include "tied_head.h"

namespace ee::checkpoint {
namespace fs = std::filesystem;
using base::UserError;

namespace {

constexpr size_t kSampleBytes = 4096;  // from start, middle and end of a tensor

void hash_samples(std::span<const std::byte> bytes, base::Hasher& hasher) {
  const size_t size = std::min(bytes.size(), kSampleBytes);
  for (const size_t begin : {size_t{0}, (bytes.size() - size) / 2, bytes.size() - size})
    hasher.update(bytes.subspan(begin, size));
}

void check_one_dtype(const TensorFiles& files) {
  const auto& tensors = files.files().front().tensors();
  for (const auto& [name, view] : tensors)
    if (const auto& [first_name, first] = *tensors.begin(); view.dtype != first.dtype)
      throw UserError("tensor {} in {} has dtype {}, but {} has {}; expected one dtype for all", name,
                      files.files().front().path().string(), format::to_string(view.dtype), first_name,
                      format::to_string(first.dtype));
}

config::ExitsConfig open_exits(const fs::path& path, const config::ModelConfig& config,
                               std::shared_ptr<TensorFiles>& files) {
  const auto exits = config::read_exits_config(path / kExitsConfigFile, config.layers);
  if (!fs::exists(path / kExitsFile))
    throw UserError("{} lists exits, but {} is missing", (path / kExitsConfigFile).string(),
                    (path / kExitsFile).string());
  files = std::make_shared<TensorFiles>(TensorFiles::open_file(path / kExitsFile));
  check_against_table(*files, exit_table(config, exits.exits), true);
  check_one_dtype(*files);
  return exits;
}

std::shared_ptr<TensorFiles> open_gates(const fs::path& path, const config::ModelConfig& config,
                                        const config::ExitsConfig& exits) {
  if (!fs::exists(path / kGatesFile)) return nullptr;
  // Left by a calibration that was interrupted: ee_config.json is written last.
  if (exits.checksums && exits.checksums->gates.empty()) return nullptr;
  auto files = std::make_shared<TensorFiles>(TensorFiles::open_file(path / kGatesFile));
  std::vector<model::TensorEntry> table;
  for (const auto& spec : exits.exits)
    table.push_back({gate_name(spec.layer), gate_shape(config), spec.layer});
  check_against_table(*files, table, true);
  return files;
}

// Its samples at each load; where they differ, every byte says more than they do.
Integrity check_contents(const ModelFolder& folder, Check check) {
  const config::ExitsConfig& exits = folder.exits();
  const std::string found = fingerprint(folder.backbone_files());
  const bool is_other = found != exits.backbone_fingerprint;
  Integrity integrity = Integrity::no_checksums;
  if (exits.checksums)
    integrity = check_integrity(folder.path(), *exits.checksums,
                                {.backbone = &folder.backbone_files(),
                                 .exits = &folder.exit_files(),
                                 .gates = folder.has_gates() ? &folder.gate_files() : nullptr},
                                is_other && check != Check::never ? Check::always : check);
  if (is_other)
    throw UserError(
        "the exits in {} were made for another backbone: {} has backbone_fingerprint {}, this backbone's is "
        "{}; attach new exits with ee-convert attach",
        folder.path().string(), kExitsConfigFile, exits.backbone_fingerprint, found);
  return integrity;
}

}  // namespace

std::string gate_name(int64_t layer) { return fmt::format("exits.{}.gate.weight", layer); }

std::vector<int64_t> gate_shape(const config::ModelConfig& config) {
  return {2, config.hidden_size + exits::kGateExtras};
}

std::vector<model::TensorEntry> exit_table(const config::ModelConfig& config,
                                           const std::vector<config::ExitSpec>& specs) {
  std::vector<model::TensorEntry> table;
  for (const auto& spec : specs) {
    exits::ExitHead empty;
    empty.spec = spec;
    exits::visit_exit(config, empty, [&](const std::string& name, const auto& shape, at::Tensor&) {
      table.push_back({name, shape, spec.layer});
    });
  }
  return table;
}

ModelFolder ModelFolder::open_backbone(const fs::path& path) {
  ModelFolder folder;
  folder.path_ = path;
  folder.config_ = config::read_model_config(path);
  folder.backbone_files_ = std::make_shared<TensorFiles>(TensorFiles::open_folder(path));
  check_has_layers(*folder.backbone_files_, folder.config_.layers);
  settle_tied_head(folder.config_, *folder.backbone_files_);
  check_against_table(*folder.backbone_files_, model::tensor_table(folder.config_), true);
  return folder;
}

ModelFolder ModelFolder::open(const fs::path& path, Check check) {
  ModelFolder folder = open_backbone(path);
  if (fs::exists(path / kExitsConfigFile)) {
    folder.exits_ = open_exits(path, folder.config_, folder.exit_files_);
    folder.gate_files_ = open_gates(path, folder.config_, *folder.exits_);
    folder.integrity_ = check_contents(folder, check);
  } else if (fs::exists(path / kExitsFile))
    throw UserError("{} is there, but {} is missing", (path / kExitsFile).string(),
                    (path / kExitsConfigFile).string());
  return folder;
}

const config::ExitsConfig& ModelFolder::exits() const {
  if (!exits_) throw UserError("{} has no exits; attach some with ee-convert attach", path_.string());
  return *exits_;
}

std::string ModelFolder::backbone_digest() const {
  if (!exits().checksums) return exits().backbone_fingerprint;
  return config::Checksums{.backbone = exits().checksums->backbone, .exits = {}, .gates = {}}.digest();
}

std::string fingerprint(const TensorFiles& backbone_files) {
  base::Hasher hasher;
  for (const auto& [name, file] : backbone_files.names()) {
    const format::TensorView& view = backbone_files.at(name);
    hasher.update(fmt::format("{}\n{}\n", name, format::to_string(view.dtype)));
    for (const int64_t size : view.shape) hasher.update(fmt::format("{},", size));
    hash_samples(view.bytes, hasher);
  }
  return hasher.digest();
}

at::ScalarType compute_dtype(const ModelFolder& folder, config::Precision precision, at::Device device) {
  if (precision == config::Precision::f32) return at::kFloat;
  if (precision == config::Precision::bf16) return at::kBFloat16;
  const at::ScalarType stored = to_torch(folder.backbone_files().at(kEmbedding).dtype);
  return stored == at::kHalf && device.is_cpu() ? at::kFloat : stored;
}

at::ScalarType new_exit_dtype(const ModelFolder& folder) {
  return compute_dtype(folder, config::Precision::stored, at::kCPU);
}

at::ScalarType stored_exit_dtype(const ModelFolder& folder) {
  const auto& tensors = folder.exit_files().files().front().tensors();
  return tensors.empty() ? new_exit_dtype(folder) : to_torch(tensors.begin()->second.dtype);
}

namespace {

using ReadTensor = std::function<at::Tensor(const std::string& name, const model::TensorShape& shape)>;

// The tensors that `options` asks for, each as `read` gives it.
model::Backbone fill_backbone(const ModelFolder& folder, const LoadOptions& options, const ReadTensor& read) {
  const config::ModelConfig& config = folder.config();
  const int64_t last = options.last_layer < 0 ? config.layers : options.last_layer;
  EE_CHECK(options.first_layer >= 1 && last >= options.first_layer - 1 && last <= config.layers,
           "layers {}..{} of {} asked for", options.first_layer, last, config.layers);
  model::Backbone backbone;
  backbone.config = config;
  backbone.first_layer = options.first_layer;
  backbone.ranks = options.ranks;
  backbone.layers.resize(static_cast<size_t>(last - options.first_layer + 1));
  model::visit_backbone(backbone,
                        [&](const std::string& name, const model::TensorShape& shape, at::Tensor& member) {
                          member = read(name, shape);
                        },
                        {.embedding = options.embedding, .head = options.head});
  if (config.tie_embeddings && options.head) backbone.head = backbone.embedding;
  return backbone;
}

}  // namespace

model::Backbone alias_backbone(const ModelFolder& folder) {
  const TensorFiles& files = folder.backbone_files();
  const at::ScalarType dtype = to_torch(files.at(kEmbedding).dtype);
  return fill_backbone(folder, {}, [&](const std::string& name, const model::TensorShape&) {
    return files.alias(name).to(dtype);
  });
}

model::Backbone load_backbone(const ModelFolder& folder, const LoadOptions& options) {
  const at::ScalarType dtype = compute_dtype(folder, options.precision, options.device);
  const auto read = [&](const std::string& name, const model::TensorShape& shape) {
    const auto slice = options.ranks.own_slice(folder.config(), shape.split, shape.sizes);
    return folder.backbone_files().read(name, slice, options.device, dtype);
  };
  model::Backbone backbone = fill_backbone(folder, options, read);
  backbone.rope = model::Rope(folder.config(), options.device);
  return backbone;
}

std::vector<config::ExitSpec> exits_at(const ModelFolder& folder, const std::vector<int64_t>& layers) {
  std::vector<config::ExitSpec> specs;
  for (const auto& spec : folder.exits().exits)
    if (layers.empty() || std::ranges::count(layers, spec.layer)) specs.push_back(spec);
  for (const int64_t layer : layers)
    if (std::ranges::none_of(specs, [&](const auto& spec) { return spec.layer == layer; })) {
      std::vector<std::string> known;
      for (const auto& spec : folder.exits().exits) known.push_back(std::to_string(spec.layer));
      throw UserError("{} has no exit at layer {}; it has exits at {}", folder.path().string(), layer,
                      base::join(known, ", "));
    }
  return specs;
}

std::vector<exits::ExitHead> load_exits(const ModelFolder& folder, const model::Backbone& backbone,
                                        const std::vector<int64_t>& layers, at::ScalarType dtype) {
  const std::vector<config::ExitSpec> specs = exits_at(folder, layers);
  std::vector<exits::ExitHead> exits(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    exits[i].spec = specs[i];
    exits::visit_exit(folder.config(), exits[i],
                      [&](const std::string& name, const model::TensorShape& shape, at::Tensor& member) {
                        const auto slice =
                            backbone.ranks.own_slice(folder.config(), shape.split, shape.sizes);
                        member = folder.exit_files().read(name, slice, backbone.device(), dtype);
                      });
    if (folder.has_gates())
      exits[i].gate =
          folder.gate_files().alias(gate_name(specs[i].layer)).to(backbone.device(), at::kFloat, false, true);
    exits::bind_shared(exits[i], backbone);
  }
  return exits;
}

}  // namespace ee::checkpoint
