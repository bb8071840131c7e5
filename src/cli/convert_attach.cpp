#include <algorithm>
#include <array>
#include <charconv>

#include "cli_options.h"
#include "convert_commands.h"
#include "convert_place.h"
#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/text.h"
#include "ee/checkpoint/attach.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/train/attach_fitted.h"
#include "infer_model.h"

namespace ee::cli {
using base::UserError;

namespace {

// What the command line says; what it does not say stays empty.
struct AttachArguments {
  std::string model, output;
  std::optional<std::string> exits, exit_layers, kind, position, head, norm, translator, init, dtype;
  std::optional<double> weight, temperature, agreement;
  std::optional<int64_t> translator_rank;
  std::vector<std::string> fit;
  std::optional<std::string> fit_precision;
  std::optional<int64_t> fit_tokens;
  std::string plot;
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
               "in place of --exits, for equal exits: a list 10,16,22, a slice 4::4, fractions every:1/4, or "
               "auto:N for "
               "the N layers that save most (with --fit)")
        .value("kind", "KIND", kind, "embedding, norm, linear, mlp or layer (default: mlp)")
        .value("position", "POSITION", position, "after or before the layer (default: after)")
        .value("head", "HEAD", head, "output embedding: own (a trained copy) or shared (default: shared)")
        .value("norm", "NORM", norm, "none, own or shared (default: own; none for kind embedding)")
        .value("translator", "KIND", translator,
               "affine map of the hidden state: none, full or low_rank (default: none; full for kind linear)")
        .value("translator-rank", "N", translator_rank, "of a low_rank one (default: 64)")
        .value("init", "INIT", init, "weights by copy, random or fit (default: copy; fit with --fit)")
        .values("fit", "DATA", fit,
                "text (as data.train of ee-tune) on which the exits' linear last steps are solved")
        .value("agreement", "A", agreement,
               "for auto:N, the wanted share of tokens that are the final layer's (default: 0.95)")
        .value("plot", "FILE.svg", plot, "for auto:N, a drawing of what an exit behind each layer brings")
        .value("fit-tokens", "N", fit_tokens, "tokens of it (default: 50000)")
        .value(
            "fit-precision", "stored|f32|bf16", fit_precision,
            "dtype that the model runs in for it (default: bf16 on a CPU with instructions for it, otherwise "
            "stored)")
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
  if (a.exits && (a.kind || a.position || a.head || a.norm || a.translator || a.translator_rank || a.init ||
                  a.weight || a.temperature || a.agreement || !a.plot.empty()))
    throw UserError(
        "--kind, --position, --head, --norm, --translator, --translator-rank, --init, --weight, "
        "--temperature, --agreement and --plot go with --exit-layers; write them into {} instead",
        *a.exits);
  if (a.fit.empty() && (a.fit_tokens || a.fit_precision))
    throw UserError("--fit-tokens and --fit-precision go with --fit DATA; give the text, or leave them out");
  if (a.fit_tokens && *a.fit_tokens < 1)
    throw UserError("option --fit-tokens: expected at least 1, got {}", *a.fit_tokens);
  if (a.agreement && !(*a.agreement > 0 && *a.agreement < 1))
    throw UserError("option --agreement: expected a share between 0 and 1, got {}", *a.agreement);
}

train::FitText fit_text(const AttachArguments& a) {
  train::FitText text{.paths = a.fit};
  if (a.fit_tokens) text.tokens = *a.fit_tokens;
  if (a.fit_precision) text.precision = parse_precision(*a.fit_precision, "--fit-precision");
  return text;
}

// N of "auto:N".
std::optional<int64_t> automatic_count(const std::string& layers) {
  constexpr std::string_view kPrefix = "auto:";
  if (!layers.starts_with(kPrefix)) return std::nullopt;
  int64_t count = 0;
  const auto [end, error] =
      std::from_chars(layers.data() + kPrefix.size(), layers.data() + layers.size(), count);
  if (error != std::errc() || end != layers.data() + layers.size() || count < 1)
    throw UserError("option --exit-layers: expected auto:N with a number of exits, as auto:3, got '{}'",
                    layers);
  return count;
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

// Which exits are to be fitted is the specs' word, on what is --fit's: neither goes without the other.
bool wants_fit(const AttachArguments& a, const std::vector<config::ExitSpec>& specs) {
  const bool any = std::any_of(specs.begin(), specs.end(),
                               [](const auto& spec) { return spec.init == config::InitKind::fit; });
  if (any && a.fit.empty())
    throw UserError("an exit has init fit; give the text to fit it on with --fit DATA");
  if (!any && !a.fit.empty()) throw UserError("--fit is given, but no exit has init fit");
  return any;
}

checkpoint::AttachOptions attach_options(const AttachArguments& a,
                                         const std::vector<config::ExitSpec>& specs) {
  return {.source = a.model,
          .output = a.output,
          .exits = specs,
          .seed = static_cast<uint64_t>(a.seed),
          .dtype = parse_float_dtype(a.dtype)};
}

// Placing takes minutes: whatever would be refused behind it, at any layer, is refused in front of it.
void check_before_placing(const AttachArguments& a, config::ExitSpec spec) {
  if (a.fit.empty())
    throw UserError("--exit-layers {} looks at what exits would do on a text; give one with --fit DATA",
                    *a.exit_layers);
  spec.layer = 1;
  wants_fit(a, {spec});
  checkpoint::check_attach(attach_options(a, {spec}));
  if (!a.plot.empty()) base::check_output_file(a.plot);
}

std::vector<int64_t> exit_layers(const AttachArguments& a, const config::ModelConfig& model,
                                 const config::ExitSpec& spec) {
  const auto count = automatic_count(*a.exit_layers);
  if (!count && a.agreement)
    throw UserError("--agreement says how auto:N chooses; --exit-layers {} chooses by itself",
                    *a.exit_layers);
  if (!count && !a.plot.empty())
    throw UserError("--plot draws how auto:N chose; --exit-layers {} chooses by itself", *a.exit_layers);
  if (!count) return config::parse_layers(*a.exit_layers, model.layers);
  check_before_placing(a, spec);
  return place_layers(model,
                      {.source = a.model,
                       .working = a.output + ".everywhere",
                       .count = *count,
                       .agreement = a.agreement.value_or(PlaceRequest{}.agreement),
                       .spec = spec,
                       .plot = a.plot},
                      fit_text(a));
}

std::vector<config::ExitSpec> exit_specs(const AttachArguments& a, const config::ModelConfig& model) {
  if (a.exits) return config::read_exit_specs(*a.exits, model.layers);
  config::ExitSpec spec;
  if (a.kind) spec.kind = config::parse_exit_kind(*a.kind);
  config::set_defaults_of_kind(spec);
  if (a.position) spec.position = config::parse_exit_position(*a.position);
  if (a.head) spec.head = config::parse_head_kind(*a.head);
  if (a.norm) spec.norm = config::parse_norm_kind(*a.norm);
  if (a.translator) spec.translator = config::parse_translator_kind(*a.translator);
  if (a.translator_rank) spec.translator_rank = *a.translator_rank;
  if (!a.fit.empty()) spec.init = config::InitKind::fit;
  if (a.init) spec.init = config::parse_init_kind(*a.init);
  if (a.weight) spec.weight = *a.weight;
  if (a.temperature) spec.temperature = *a.temperature;
  std::vector<config::ExitSpec> specs;
  for (const int64_t layer : exit_layers(a, model, spec)) {
    spec.layer = layer;
    specs.push_back(spec);
  }
  return specs;
}

void attach(const AttachArguments& a, const checkpoint::AttachOptions& options) {
  if (wants_fit(a, options.exits))
    fmt::print("{}", train::to_table(train::attach_fitted(options, fit_text(a))));
  else
    checkpoint::attach_exits(options);
}

}  // namespace

int convert_attach(const std::vector<std::string>& args) {
  AttachArguments arguments;
  if (!arguments.parse(args)) return 0;
  check_one_form(arguments);
  if (arguments.seed < 0) throw UserError("option --seed: expected 0 or more, got {}", arguments.seed);
  const config::ModelConfig model = checkpoint::read_source_config(arguments.model);
  const auto specs = exit_specs(arguments, model);
  attach(arguments, attach_options(arguments, specs));
  double parameters = 0;
  for (const auto& spec : specs) parameters += static_cast<double>(exits::parameter_count(model, spec));
  fmt::print("{}: {} layers, {} exits with {} parameters of their own\n", arguments.output, model.layers,
             specs.size(), base::format_count(parameters));
  return 0;
}

}  // namespace ee::cli
