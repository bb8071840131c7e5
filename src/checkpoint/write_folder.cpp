#include <algorithm>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "folder_parts.h"

namespace ee::checkpoint {
namespace fs = std::filesystem;

format::TensorToWrite tensor_to_write(const TensorSource& source, at::ScalarType dtype) {
  return {.name = source.name,
          .dtype = from_torch(dtype),
          .shape = source.shape,
          .produce = [source, dtype](const auto& sink) {
            const at::Tensor bytes = source.get().detach().to(at::kCPU, dtype).contiguous();
            EE_CHECK(bytes.sizes() == at::IntArrayRef(source.shape),
                     "tensor {} has {} dimensions of other sizes", source.name, bytes.dim());
            sink({static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()});
          }};
}

TensorSources exit_sources(const config::ModelConfig& config, std::vector<exits::ExitHead>& exits) {
  TensorSources sources;
  for (auto& exit : exits)
    exits::visit_exit(config, exit,
                      [&](const std::string& name, const model::TensorShape& shape, at::Tensor& member) {
                        sources.push_back({name, shape.sizes, [member] { return member; }});
                      });
  return sources;
}

void write_exits(const fs::path& folder, const config::ModelConfig& config,
                 std::vector<config::ExitSpec> specs, const TensorSources& tensors,
                 const std::string& backbone_fingerprint, at::ScalarType stored) {
  config::validate_exits(specs, config.layers, "the exits to write");
  std::vector<format::TensorToWrite> list;
  for (const auto& source : tensors) list.push_back(tensor_to_write(source, stored));
  format::write_safetensors(folder / kExitsFile, list, {{"format", "pt"}});
  config::ExitsConfig exits_config;
  exits_config.exits = std::move(specs);
  exits_config.backbone_fingerprint = backbone_fingerprint;
  base::OutputFile out(folder / kExitsConfigFile);
  out.write(config::write_exits_config(exits_config));
  out.close();
}

std::vector<config::ExitSpec> specs_of(const std::vector<exits::ExitHead>& exits) {
  std::vector<config::ExitSpec> specs;
  for (const auto& exit : exits) specs.push_back(exit.spec);
  return specs;
}

namespace {

// Not a link: an edit of one folder's config.json must not reach into another folder.
void copy_contents(const fs::path& from, const fs::path& to) {
  base::OutputFile out(to);
  out.write(base::MappedFile(from).bytes());
  out.close();
}

}  // namespace

void link_backbone(const ModelFolder& source, const fs::path& target, bool weights) {
  for (const auto& entry : fs::directory_iterator(source.path())) {
    const fs::path name = entry.path().filename();
    if (!entry.is_regular_file() || name == kExitsConfigFile || name == kExitsFile || name == kGatesFile)
      continue;
    if (!weights && (name.extension() == ".safetensors" || name == kIndexFile)) continue;
    if (name.extension() == ".safetensors")
      base::link_or_copy(entry.path(), target / name);
    else
      copy_contents(entry.path(), target / name);
  }
}

void write_backbone(const fs::path& folder, const TensorSources& tensors, at::ScalarType stored) {
  std::vector<format::TensorToWrite> list;
  for (const auto& source : tensors) list.push_back(tensor_to_write(source, stored));
  format::write_safetensors(folder / kSingleFile, list, {{"format", "pt"}});
}

namespace {

void write_gates(const fs::path& folder, const std::vector<exits::ExitHead>& exits) {
  std::vector<format::TensorToWrite> list;
  for (const auto& exit : exits) {
    if (!exit.gate.defined()) continue;
    const TensorSource source{gate_name(exit.spec.layer), exit.gate.sizes().vec(),
                              [gate = exit.gate] { return gate; }};
    list.push_back(tensor_to_write(source, at::kFloat));
  }
  EE_CHECK(list.empty() || list.size() == exits.size(), "{} of {} exits have a gate", list.size(),
           exits.size());
  if (list.empty()) {
    fs::remove(folder / kGatesFile);
    return;
  }
  const fs::path temporary = folder / (std::string(kGatesFile) + ".tmp");
  format::write_safetensors(temporary, list, {{"format", "pt"}});
  fs::rename(temporary, folder / kGatesFile);
}

}  // namespace

void write_calibration(const ModelFolder& folder, const std::vector<exits::ExitHead>& exits,
                       const std::vector<config::QualityLevel>& quality) {
  config::ExitsConfig config = folder.exits();
  config.exits = specs_of(exits);
  config.quality.clear();
  const fs::path file = folder.path() / kExitsConfigFile;
  base::write_file_atomically(file, config::write_exits_config(config));
  write_gates(folder.path(), exits);
  config.quality = quality;
  base::write_file_atomically(file, config::write_exits_config(config));
}

void write_model_folder(const ModelFolder& source, const std::vector<config::ExitSpec>& specs,
                        const TensorSources& tensors, const fs::path& target, at::ScalarType stored,
                        const TensorSources& backbone) {
  base::AtomicDirectory output(target);
  link_backbone(source, output.path(), backbone.empty());
  if (!backbone.empty())
    write_backbone(output.path(), backbone, to_torch(source.backbone_files().at(kEmbedding).dtype));
  const std::string print = backbone.empty() ? fingerprint(source.backbone_files())
                                             : fingerprint(TensorFiles::open_folder(output.path()));
  write_exits(output.path(), source.config(), specs, tensors, print, stored);
  output.commit();
}

void write_model_folder(const ModelFolder& source, std::vector<exits::ExitHead>& exits,
                        const fs::path& target, at::ScalarType stored) {
  write_model_folder(source, specs_of(exits), exit_sources(source.config(), exits), target, stored);
}

}  // namespace ee::checkpoint
