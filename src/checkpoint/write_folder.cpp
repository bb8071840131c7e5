#include <algorithm>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "folder_parts.h"

namespace ee::checkpoint {
namespace fs = std::filesystem;

format::TensorToWrite tensor_to_write(const std::string& name, const at::Tensor& tensor,
                                      at::ScalarType dtype) {
  return {.name = name,
          .dtype = from_torch(dtype),
          .shape = tensor.sizes().vec(),
          .produce = [tensor, dtype](const auto& sink) {
            const at::Tensor bytes = tensor.detach().to(at::kCPU, dtype).contiguous();
            sink({static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()});
          }};
}

void write_exits(const fs::path& folder, const config::ModelConfig& config,
                 std::vector<exits::ExitHead>& exits, const std::string& backbone_fingerprint,
                 at::ScalarType stored) {
  config::ExitsConfig exits_config;
  exits_config.backbone_fingerprint = backbone_fingerprint;
  std::vector<format::TensorToWrite> tensors;
  for (auto& exit : exits) {
    exits_config.exits.push_back(exit.spec);
    exits::visit_exit(config, exit, [&](const std::string& name, const auto& shape, at::Tensor& member) {
      EE_CHECK(member.sizes() == at::IntArrayRef(shape), "tensor {} has {} dimensions of other sizes", name,
               member.dim());
      tensors.push_back(tensor_to_write(name, member, stored));
    });
  }
  config::validate_exits(exits_config.exits, config.layers, "the exits to write");
  format::write_safetensors(folder / kExitsFile, tensors, {{"format", "pt"}});
  base::OutputFile out(folder / kExitsConfigFile);
  out.write(config::write_exits_config(exits_config));
  out.close();
}

namespace {

// Not a link: an edit of one folder's config.json must not reach into another folder.
void copy_contents(const fs::path& from, const fs::path& to) {
  base::OutputFile out(to);
  out.write(base::MappedFile(from).bytes());
  out.close();
}

}  // namespace

void link_backbone(const ModelFolder& source, const fs::path& target) {
  for (const auto& entry : fs::directory_iterator(source.path())) {
    const fs::path name = entry.path().filename();
    if (!entry.is_regular_file() || name == kExitsConfigFile || name == kExitsFile) continue;
    if (name.extension() == ".safetensors")
      base::link_or_copy(entry.path(), target / name);
    else
      copy_contents(entry.path(), target / name);
  }
}

void write_model_folder(const ModelFolder& source, std::vector<exits::ExitHead>& exits,
                        const fs::path& target, at::ScalarType stored) {
  base::AtomicDirectory output(target);
  link_backbone(source, output.path());
  write_exits(output.path(), source.config(), exits, fingerprint(source.backbone_files()), stored);
  output.commit();
}

}  // namespace ee::checkpoint
