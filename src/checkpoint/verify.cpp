#include "ee/checkpoint/verify.h"

#include <algorithm>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/text.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/tokenizer/ids_only.h"
#include "ee/tokenizer/model_tokenizer.h"
#include "folder_parts.h"

namespace ee::checkpoint {
using base::UserError;

namespace {

constexpr int64_t kScanElements = 1 << 20;
constexpr int64_t kForwardTokens = 8;

bool all_finite(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.reshape({-1});
  for (int64_t first = 0; first < flat.numel(); first += kScanElements) {
    const at::Tensor piece = flat.narrow(0, first, std::min(kScanElements, flat.numel() - first));
    if (!at::isfinite(piece).all().item<bool>()) return false;
  }
  return true;
}

void check_finite(const TensorFiles& files) {
  for (const auto& [name, file] : files.names())
    if (!all_finite(files.alias(name)))
      throw UserError("tensor {} in {} has values that are NaN or infinite", name,
                      files.files()[file].path().string());
}

std::string check_tokenizer(const ModelFolder& folder) {
  if (!tokenizer::has_tokenizer(folder.path())) return "tokenizer: none, the model is for ids only";
  const auto tokenizer = tokenizer::Tokenizer::load(folder.path());
  const int64_t tokens = tokenizer->vocab_size(), rows = folder.config().vocab_size;
  tokenizer::load_model_tokenizer(folder.path(), rows);  // its BOS and EOS are tokens of the model
  return fmt::format("tokenizer: {} tokens for a vocabulary of {}{}", tokens, rows,
                     tokens > rows ? "; text with the others is refused" : "");
}

void check_logits(const at::Tensor& logits, const std::string& where) {
  if (!all_finite(logits))
    throw UserError("the forward pass gives logits that are NaN or infinite {}", where);
}

// Tokens from all over the vocabulary through every layer and every exit.
void check_forward(const ModelFolder& folder) {
  const model::Backbone backbone = load_backbone(folder, {});
  const at::ScalarType dtype = backbone.dtype();
  std::vector<exits::ExitHead> exits;
  if (folder.has_exits()) exits = load_exits(folder, backbone, {}, dtype);
  const int64_t vocab = folder.config().vocab_size;
  const int64_t count = std::min(kForwardTokens, config::text_limit(folder.config()).tokens);
  const at::Tensor tokens = at::arange(count, at::kLong)
                                .mul(vocab - 1)
                                .floor_divide(std::max<int64_t>(count - 1, 1))
                                .view({1, count});
  const at::Tensor last = model::run_layers(
      backbone, tokens, folder.config().layers, [&](int64_t depth, const model::LayerTrace& trace) {
        for (const auto& exit : exits)
          if (exit.spec.depth() == depth)
            check_logits(exit.logits(backbone, exit.forward(backbone, exits::exit_input(exit.spec, trace))),
                         fmt::format("at the exit of layer {}", exit.spec.layer));
      });
  const at::Tensor hidden = model::rms_norm(last, backbone.final_norm, folder.config().rms_norm_eps);
  check_logits(at::linear(hidden, backbone.head), "at the final layer");
}

std::string how_to_add(const std::filesystem::path& folder) {
  return fmt::format(
      "{} has no checksums: it was written before there were any, and damaged or altered weights would go "
      "unseen. Add them with ee-convert verify --add-checksums {}, if the folder is as it should be",
      (folder / kExitsConfigFile).string(), folder.string());
}

void check_stray_gates(const ModelFolder& folder) {
  if (std::filesystem::exists(folder.path() / kGatesFile) != folder.has_gates())
    throw UserError(
        "{} is not listed in {}: a calibration was interrupted; run ee-tune calibrate again, or remove the "
        "file",
        (folder.path() / kGatesFile).string(), kExitsConfigFile);
  if (!folder.has_gates() && folder.exits().checksums && !folder.exits().checksums->gates.empty())
    throw UserError(
        "{} has checksums of gates, but {} is missing; restore it, or run ee-tune calibrate again",
        (folder.path() / kExitsConfigFile).string(), kGatesFile);
}

void check_all(const ModelFolder& folder, const std::function<void(const std::string&)>& ok) {
  const TensorFiles& backbone = folder.backbone_files();
  ok(fmt::format("backbone: {} tensors with the names, shapes and dtypes of a {} of {} layers",
                 backbone.names().size(), folder.config().model_type, folder.config().layers));
  if (folder.has_exits())
    ok(fmt::format("exits: {} tensors of {} exits; backbone fingerprint matches",
                   folder.exit_files().names().size(), folder.exits().exits.size()));
  if (folder.has_exits()) check_stray_gates(folder);
  if (folder.integrity() == Integrity::checked)
    ok(fmt::format("checksums: every byte of {} tensors; digest {}",
                   backbone.names().size() + folder.exit_files().names().size() +
                       (folder.has_gates() ? folder.gate_files().names().size() : 0),
                   folder.exits().checksums->digest()));
  check_finite(backbone);
  if (folder.has_exits()) check_finite(folder.exit_files());
  if (folder.has_gates()) check_finite(folder.gate_files());
  ok("values: all finite");
  ok(check_tokenizer(folder));
  check_forward(folder);
  ok(fmt::format("forward pass: finite logits at the final layer{}",
                 folder.has_exits() ? fmt::format(" and {} exits", folder.exits().exits.size()) : ""));
}

}  // namespace

void verify_model_folder(const std::filesystem::path& path,
                         const std::function<void(const std::string&)>& ok) {
  const ModelFolder folder = ModelFolder::open(path, Check::always);
  check_all(folder, ok);
  if (folder.has_exits() && !folder.exits().checksums) throw UserError("{}", how_to_add(path));
}

void add_checksums(const std::filesystem::path& path, const std::function<void(const std::string&)>& ok) {
  const ModelFolder folder = ModelFolder::open(path, Check::always);
  config::ExitsConfig exits = folder.exits();
  const std::filesystem::path file = path / kExitsConfigFile;
  if (exits.checksums)
    throw UserError("{} has checksums, and they are right; new ones are never put in their place",
                    file.string());
  check_all(folder, ok);
  exits.checksums = {.backbone = compute_checksums(folder.backbone_files()),
                     .exits = compute_checksums(folder.exit_files()),
                     .gates = {}};
  if (folder.has_gates()) exits.checksums->gates = compute_checksums(folder.gate_files());
  base::write_file_atomically(file, config::write_exits_config(exits));
  ok(fmt::format("added checksums to {}; digest {}", file.string(), exits.checksums->digest()));
}

std::string missing_checksums(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path / kExitsConfigFile)) return "";
  const auto exits =
      config::read_exits_config(path / kExitsConfigFile, config::read_model_config(path).layers);
  return exits.checksums ? "" : how_to_add(path);
}

}  // namespace ee::checkpoint
