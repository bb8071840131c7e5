#include "ee/checkpoint/attach.h"

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/exits/exit_init.h"
#include "ee/tokenizer/ids_only.h"
#include "folder_parts.h"
#include "gguf_import.h"
#include "open_tokenizer.h"

namespace ee::checkpoint {
namespace fs = std::filesystem;
using base::UserError;

namespace {

bool is_gguf(const fs::path& source) {
  if (!fs::exists(source)) throw UserError("there is no model at {}", source.string());
  return !fs::is_directory(source);
}

// Makes the exits of `specs` from `source`'s backbone, which stays mapped, and writes them into `folder`.
void write_new_exits(const ModelFolder& source, const std::vector<config::ExitSpec>& specs, uint64_t seed,
                     const fs::path& folder) {
  const model::Backbone backbone = alias_backbone(source);
  std::vector<exits::ExitHead> exits;
  for (const auto& spec : specs) exits.push_back(exits::make_exit(backbone, spec, seed));
  write_exits(folder, source.config(), specs_of(exits), exit_sources(source.config(), exits),
              prove_backbone(source), new_exit_dtype(source));
}

void attach_to_gguf(const AttachOptions& options) {
  const format::GgufFile file(options.source);
  const GgufImport gguf(file, options.dtype.value_or(format::DType::f32));
  base::AtomicDirectory output(options.output);
  gguf.write(output.path());
  write_new_exits(ModelFolder::open(output.path()), options.exits, options.seed, output.path());
  output.commit();
}

void attach_to_folder(const AttachOptions& options) {
  const ModelFolder source = ModelFolder::open_backbone(options.source);
  if (tokenizer::has_tokenizer(source.path())) {
    check_tokenizer_opens(source.path(), source.config().vocab_size, options.source);
  }
  base::AtomicDirectory output(options.output);
  link_backbone(source, output.path());
  write_new_exits(source, options.exits, options.seed, output.path());
  output.commit();
}

}  // namespace

config::ModelConfig read_source_config(const fs::path& source) {
  return is_gguf(source) ? gguf_model_config(format::GgufFile(source)) : config::read_model_config(source);
}

void check_attach(const AttachOptions& options) {
  if (options.dtype && !is_gguf(options.source))
    throw UserError("a dtype can be chosen for a GGUF file only; {} keeps its files as they are",
                    options.source.string());
  std::vector<config::ExitSpec> specs = options.exits;
  config::validate_exits(specs, read_source_config(options.source).layers, "the exits to attach");
  base::check_new_output(options.output);
}

void attach_exits(const AttachOptions& options) {
  check_attach(options);
  is_gguf(options.source) ? attach_to_gguf(options) : attach_to_folder(options);
}

void write_gguf_model(const fs::path& gguf, const fs::path& folder) {
  const format::GgufFile file(gguf);
  GgufImport(file, format::DType::f32).write(folder);
}

void move_exits(const fs::path& folder, config::ExitPosition position, const fs::path& output, Check check) {
  base::check_new_output(output);
  const ModelFolder source = ModelFolder::open(folder, check);
  const model::Backbone backbone = alias_backbone(source);
  std::vector<config::ExitSpec> moved = source.exits().exits;
  for (auto& spec : moved) {
    if (spec.position == position) continue;
    if (spec.kind == config::ExitKind::mlp)
      throw UserError(
          "the exit at layer {} is of kind mlp, which reads inside its layer: it cannot be moved (kinds "
          "embedding, norm and layer can)",
          spec.layer);
    // "before L" reads what "after L-1" reads.
    spec.layer += position == config::ExitPosition::before ? 1 : -1;
    spec.position = position;
  }
  std::vector<exits::ExitHead> exits = load_exits(source, backbone, {}, stored_exit_dtype(source));
  for (size_t i = 0; i < exits.size(); ++i) exits[i].spec = moved[i];
  config::validate_exits(moved, source.config().layers, "the moved exits");
  write_model_folder(source, exits, output, stored_exit_dtype(source));
}

}  // namespace ee::checkpoint
