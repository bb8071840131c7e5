#include "infer_model.h"

#include <ATen/Parallel.h>

#include <cstdlib>

#include "ee/base/cores.h"
#include "ee/base/error.h"
#include "ee/checkpoint/verify.h"
#include "ee/config/exit_spec.h"
#include "ee/config/model_config.h"

namespace ee::cli {

namespace {

constexpr int64_t kMostThreads = 1024;

}  // namespace

config::Precision parse_precision(const std::string& text, std::string_view option) {
  const std::optional<config::Precision> precision = config::value_of<config::Precision>(text);
  if (!precision) {
    throw base::UserError("option {}: expected stored, f32 or bf16, got '{}'", option, text);
  }
  return *precision;
}

void declare_no_verify(CommandLine& line, bool& no_verify) {
  line.flag("no-verify", no_verify,
            "do not compare the tensors with their checksums (done once for each state of a file)");
}

void warn_of_missing_checksums(const std::string& folder) {
  const std::string text = checkpoint::missing_checksums(folder);
  if (!text.empty()) fmt::print(stderr, "warning: {}\n", text);
}

void ModelArguments::declare(CommandLine& line) {
  line.value("model", "DIR", folder, "model folder, with or without exits").required("model");
  line.value("exits", "LAYERS", exits, "only these exits, as 10,22 (default: all of the folder)");
  line.value("precision", "stored|f32|bf16", precision, "dtype of weights and computation");
  line.value("threads", "N", threads,
             "threads that compute, 0: one per core, divided among the processes of a machine");
  declare_no_verify(line, no_verify);
}

void set_threads(int64_t threads, int64_t processes) {
  if (threads < 0 || threads > kMostThreads) {
    throw base::UserError("option --threads: expected 0 to {}, got {}", kMostThreads, threads);
  }
  if (threads > 0) {
    at::set_num_threads(static_cast<int>(threads));
  } else if (processes > 1 || std::getenv("OMP_NUM_THREADS") == nullptr) {  // which LibTorch obeys by itself
    at::set_num_threads(static_cast<int>(base::cores_for_each(processes)));
  }
}

void ModelArguments::set_threads(int64_t processes) const { cli::set_threads(threads, processes); }

infer::LoadRequest ModelArguments::request() const {
  infer::LoadRequest request{.folder = folder, .precision = parse_precision(precision), .exits = {}};
  if (no_verify) {
    request.check = checkpoint::Check::never;
  }
  if (!exits.empty()) {
    request.exits = config::parse_layers(exits, config::read_model_config(folder).layers);
  }
  return request;
}

infer::Model ModelArguments::load() const {
  set_threads(1);
  infer::Model model = infer::load_model(request());
  warn_of_missing_checksums(folder);
  return model;
}

std::unique_ptr<tokenizer::Tokenizer> ModelArguments::load_tokenizer(const infer::Model& model) const {
  return infer::load_tokenizer(folder, model.backbone.config);
}

}  // namespace ee::cli
