#include <algorithm>
#include <array>

#include "cli_options.h"
#include "convert_commands.h"
#include "ee/base/error.h"
#include "ee/base/text.h"
#include "ee/checkpoint/attach.h"
#include "ee/checkpoint/model_folder.h"

namespace ee::cli {
using base::UserError;

namespace {

// What the command line says; what it does not say stays empty.
struct AttachArguments {
  std::string model, output;
  std::optional<std::string> exits, exit_layers, kind, position, head, norm, init, dtype;
  std::optional<double> weight, temperature;
  int64_t seed = 1234;

  bool parse(const std::vector<std::string>& args) {
    CommandLine line(
        "ee-convert attach --model SRC (--exits SPEC.json | --exit-layers LAYERS [...]) --output DIR",
        "Writes a model folder with new exits. SRC's files are hard-linked or copied as they are; a "
        "GGUF file is dequantized. Exits that SRC already has are replaced in the output.");
    line.value("model", "SRC", model, "Hugging Face folder with safetensors, or a GGUF file")
        .value("output", "DIR", output, "folder to create")
        .value("exits", "FILE", exits, R"(JSON file {"exits": [{"layer": 10, "kind": "mlp", ...}, ...]})")
        .value("exit-layers", "LAYERS", exit_layers,
               "in place of --exits, for equal exits: a list 10,16,22, a slice 4::4 or fractions every:1/4")
        .value("kind", "KIND", kind, "embedding, norm, mlp or layer (default: mlp)")
        .value("position", "POSITION", position, "after or before the layer (default: after)")
        .value("head", "HEAD", head, "output embedding: own (a trained copy) or shared (default: shared)")
        .value("norm", "NORM", norm, "none, own or shared (default: own; none for kind embedding)")
        .value("init", "INIT", init, "weights by copy or random (default: copy)")
        .value("weight", "W", weight, "of each exit's loss (default: 1)")
        .value("temperature", "T", temperature, "divides each exit's logits (default: 1)")
        .value("seed", "N", seed, "of random weights")
        .value("dtype", "DTYPE", dtype, "what a GGUF file is dequantized to: f32, bf16 or f16 (default: f32)")
        .required("model")
        .required("output");
    return line.parse(args);
  }
};

void check_one_form(const AttachArguments& a) {
  if (a.exits.has_value() == a.exit_layers.has_value())
    throw UserError("expected exactly one of --exits FILE and --exit-layers LAYERS");
  if (a.exits && (a.kind || a.position || a.head || a.norm || a.init || a.weight || a.temperature))
    throw UserError(
        "--kind, --position, --head, --norm, --init, --weight and --temperature go with --exit-layers; "
        "write them into {} instead",
        *a.exits);
}

std::vector<config::ExitSpec> exit_specs(const AttachArguments& a, int64_t layers) {
  if (a.exits) return config::read_exit_specs(*a.exits, layers);
  config::ExitSpec spec;
  if (a.kind) spec.kind = config::parse_exit_kind(*a.kind);
  if (spec.kind == config::ExitKind::embedding) spec.norm = config::NormKind::none;
  if (a.position) spec.position = config::parse_exit_position(*a.position);
  if (a.head) spec.head = config::parse_head_kind(*a.head);
  if (a.norm) spec.norm = config::parse_norm_kind(*a.norm);
  if (a.init) spec.init = config::parse_init_kind(*a.init);
  if (a.weight) spec.weight = *a.weight;
  if (a.temperature) spec.temperature = *a.temperature;
  std::vector<config::ExitSpec> specs;
  for (const int64_t layer : config::parse_layers(*a.exit_layers, layers)) {
    spec.layer = layer;
    specs.push_back(spec);
  }
  return specs;
}

std::optional<format::DType> parse_float_dtype(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  using enum format::DType;
  constexpr std::array<std::pair<const char*, format::DType>, 3> kNames{
      {{"f32", f32}, {"bf16", bf16}, {"f16", f16}}};
  for (const auto& [known, dtype] : kNames)
    if (*name == known) return dtype;
  throw UserError("option --dtype: expected f32, bf16 or f16, got '{}'", *name);
}

}  // namespace

int convert_attach(const std::vector<std::string>& args) {
  AttachArguments arguments;
  if (!arguments.parse(args)) return 0;
  check_one_form(arguments);
  if (arguments.seed < 0) throw UserError("option --seed: expected 0 or more, got {}", arguments.seed);
  const auto dtype = parse_float_dtype(arguments.dtype);
  const config::ModelConfig model = checkpoint::read_source_config(arguments.model);
  const auto specs = exit_specs(arguments, model.layers);
  checkpoint::attach_exits({.source = arguments.model,
                            .output = arguments.output,
                            .exits = specs,
                            .seed = static_cast<uint64_t>(arguments.seed),
                            .dtype = dtype});
  double parameters = 0;
  for (const auto& spec : specs) parameters += static_cast<double>(exits::parameter_count(model, spec));
  fmt::print("{}: {} layers, {} exits with {} parameters of their own\n", arguments.output, model.layers,
             specs.size(), base::format_count(parameters));
  return 0;
}

}  // namespace ee::cli
