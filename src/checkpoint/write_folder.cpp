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

namespace {

// Writes a file of all `tensors` and tells their checksums, made of what was handed to the disk.
TensorChecksums write_checked(const fs::path& file, const TensorSources& tensors, at::ScalarType stored) {
  TensorChecksums checksums;
  std::vector<format::TensorToWrite> list;
  for (const auto& source : tensors)
    list.push_back(with_checksum(tensor_to_write(source, stored), checksums));
  format::write_safetensors(file, list, {{"format", "pt"}});
  return checksums;
}

}  // namespace

void write_exits(const fs::path& folder, const config::ModelConfig& config,
                 std::vector<config::ExitSpec> specs, const TensorSources& tensors, BackboneProof backbone,
                 at::ScalarType stored) {
  config::validate_exits(specs, config.layers, "the exits to write");
  config::ExitsConfig exits_config;
  exits_config.exits = std::move(specs);
  exits_config.backbone_fingerprint = backbone.fingerprint;
  exits_config.checksums = {.backbone = std::move(backbone.checksums),
                            .exits = write_checked(folder / kExitsFile, tensors, stored),
                            .gates = {}};
  base::OutputFile out(folder / kExitsConfigFile);
  out.write(config::write_exits_config(exits_config));
  out.close();
  remember_read(folder, std::move(backbone.read));
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
    if (name == "additional_chat_templates") fs::copy(entry.path(), target / name);
    if (!entry.is_regular_file() || name == kExitsConfigFile || name == kExitsFile || name == kGatesFile)
      continue;
    if (!weights && (name.extension() == ".safetensors" || name == kIndexFile)) continue;
    if (name.extension() == ".safetensors")
      base::link_or_copy(entry.path(), target / name);
    else
      copy_contents(entry.path(), target / name);
  }
}

BackboneProof write_backbone(const fs::path& folder, const TensorSources& tensors, at::ScalarType stored) {
  TensorChecksums checksums = write_checked(folder / kSingleFile, tensors, stored);
  return {.fingerprint = fingerprint(TensorFiles::open_folder(folder)), .checksums = std::move(checksums)};
}

BackboneProof prove_backbone(const ModelFolder& folder) {
  const TensorFiles& files = folder.backbone_files();
  if (folder.has_exits() && folder.exits().checksums)
    return {.fingerprint = fingerprint(files), .checksums = folder.exits().checksums->backbone};
  ReadFiles read = read_checksums(files);
  return {.fingerprint = fingerprint(files),
          .checksums = std::move(read.checksums),
          .read = std::move(read.files)};
}

namespace {

TensorChecksums write_gates(const fs::path& folder, const std::vector<exits::ExitHead>& exits) {
  TensorSources gates;
  for (const auto& exit : exits)
    if (exit.gate.defined())
      gates.push_back(
          {gate_name(exit.spec.layer), exit.gate.sizes().vec(), [gate = exit.gate] { return gate; }});
  EE_CHECK(gates.empty() || gates.size() == exits.size(), "{} of {} exits have a gate", gates.size(),
           exits.size());
  if (gates.empty()) {
    fs::remove(folder / kGatesFile);
    return {};
  }
  const fs::path temporary = folder / (std::string(kGatesFile) + ".tmp");
  TensorChecksums checksums = write_checked(temporary, gates, at::kFloat);
  fs::rename(temporary, folder / kGatesFile);
  return checksums;
}

}  // namespace

void write_calibration(const ModelFolder& folder, const std::vector<exits::ExitHead>& exits,
                       const std::vector<config::QualityLevel>& quality) {
  config::ExitsConfig config = folder.exits();
  config.exits = specs_of(exits);
  config.quality.clear();
  if (config.checksums) config.checksums->gates.clear();
  const fs::path file = folder.path() / kExitsConfigFile;
  base::write_file_atomically(file, config::write_exits_config(config));
  TensorChecksums gates = write_gates(folder.path(), exits);
  if (config.checksums) config.checksums->gates = std::move(gates);
  config.quality = quality;
  base::write_file_atomically(file, config::write_exits_config(config));
}

void write_model_folder(const ModelFolder& source, const std::vector<config::ExitSpec>& specs,
                        const TensorSources& tensors, const fs::path& target, at::ScalarType stored,
                        const TensorSources& backbone) {
  base::AtomicDirectory output(target);
  link_backbone(source, output.path(), backbone.empty());
  const at::ScalarType dtype = to_torch(source.backbone_files().at(kEmbedding).dtype);
  BackboneProof proof =
      backbone.empty() ? prove_backbone(source) : write_backbone(output.path(), backbone, dtype);
  write_exits(output.path(), source.config(), specs, tensors, std::move(proof), stored);
  output.commit();
}

void write_model_folder(const ModelFolder& source, std::vector<exits::ExitHead>& exits,
                        const fs::path& target, at::ScalarType stored) {
  write_model_folder(source, specs_of(exits), exit_sources(source.config(), exits), target, stored);
}

}  // namespace ee::checkpoint
