// What an early exit is (EE-LLM section 3, EE-Tuning section 3.1), and ee_config.json.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "ee/config/declare.h"

namespace ee::config {

enum class ExitKind {
  embedding,  // output embedding on the hidden state as it is
  norm,       // norm + output embedding
  mlp,        // a copy of the exit layer's MLP on the post-attention norm output, added to the post-attention
        // stream; then norm + output embedding. A copied one predicts what stopping at this layer predicts.
  layer,  // a copy of the model's last decoder layer on the exit layer's output; then norm + output embedding
};
enum class ExitPosition { after, before };  // of the 1-based layer; "before L" taps what "after L-1" taps
enum class HeadKind { own, shared };        // output embedding: copied and trained, or the backbone's, frozen
enum class NormKind { none, own, shared };  // norm in front of the output embedding
enum class InitKind { copy, random };  // random: normal 0.02, output projections scaled by 1/sqrt(2*layer)

constexpr std::array<EnumName<ExitKind>, 4> enum_names(ExitKind) {
  return {{{ExitKind::embedding, "embedding"},
           {ExitKind::norm, "norm"},
           {ExitKind::mlp, "mlp"},
           {ExitKind::layer, "layer"}}};
}
constexpr std::array<EnumName<ExitPosition>, 2> enum_names(ExitPosition) {
  return {{{ExitPosition::after, "after"}, {ExitPosition::before, "before"}}};
}
constexpr std::array<EnumName<HeadKind>, 2> enum_names(HeadKind) {
  return {{{HeadKind::own, "own"}, {HeadKind::shared, "shared"}}};
}
constexpr std::array<EnumName<NormKind>, 3> enum_names(NormKind) {
  return {{{NormKind::none, "none"}, {NormKind::own, "own"}, {NormKind::shared, "shared"}}};
}
constexpr std::array<EnumName<InitKind>, 2> enum_names(InitKind) {
  return {{{InitKind::copy, "copy"}, {InitKind::random, "random"}}};
}

struct ExitSpec {
  int64_t layer = 0;  // 1-based; unique within a model
  ExitKind kind = ExitKind::mlp;
  ExitPosition position = ExitPosition::after;  // mlp exits are always `after`, as in EE-LLM
  HeadKind head = HeadKind::shared;
  NormKind norm = NormKind::own;  // embedding exits default to none, all others to own
  InitKind init = InitKind::copy;
  double weight = 1.0;       // of this exit's loss
  double temperature = 1.0;  // divides the logits before softmax, in training and for the confidence

  // How many backbone layers run before this exit can be evaluated.
  int64_t depth() const { return position == ExitPosition::after ? layer : layer - 1; }
  bool operator==(const ExitSpec&) const = default;
};

template <typename Visitor>
void visit(Visitor& v, ExitSpec& o) {
  v(o.layer, "layer", "1-based backbone layer", Limits{.min = 1, .required = true});
  v(o.kind, "kind", "what stands between the layer and the exit's norm");
  v(o.position, "position", "of the exit relative to the layer");
  v(o.head, "head", "output embedding: a trained copy, or the backbone's");
  v(o.norm, "norm", "norm in front of the output embedding");
  v(o.init, "init", "weights copied from the backbone, or random");
  v(o.weight, "weight", "of this exit's loss", at_least(0));
  v(o.temperature, "temperature", "divides the logits", more_than(0));
}

struct ExitsConfig {
  static constexpr int kFormatVersion = 1;
  std::vector<ExitSpec> exits;       // sorted by layer
  std::string backbone_fingerprint;  // of checkpoint::fingerprint()

  bool operator==(const ExitsConfig&) const = default;
};

std::string_view to_string(ExitKind);
std::string_view to_string(ExitPosition);
std::string_view to_string(HeadKind);
std::string_view to_string(NormKind);
std::string_view to_string(InitKind);

// Each parse_* is the inverse of to_string; UserError with the list of known names and the nearest one.
ExitKind parse_exit_kind(std::string_view);
ExitPosition parse_exit_position(std::string_view);
HeadKind parse_head_kind(std::string_view);
NormKind parse_norm_kind(std::string_view);
InitKind parse_init_kind(std::string_view);

// "10,16,22", the slice "4::4" (start:stop:step over 1..layers, stop inclusive, empty = end) or fractions
// "every:1/4" (the layers nearest to 1/4, 2/4, 3/4 and 4/4 of the depth). UserError: out of range,
// duplicates, nothing selected.
std::vector<int64_t> parse_layers(std::string_view text, int64_t layers);

// An exit-spec file for `ee-convert attach --exits`: {"exits": [{"layer": 10, "kind": "mlp", ...}, ...]}.
// Absent keys take ExitSpec's defaults. All problems in one UserError.
std::vector<ExitSpec> read_exit_specs(const std::filesystem::path& file, int64_t layers);

// Sorts by layer. One UserError with everything that is wrong: no exits, layer out of range or twice, mlp
// with position before, norm without a norm, non-positive temperature, negative weight.
void validate_exits(std::vector<ExitSpec>& exits, int64_t layers, std::string_view origin);

// ee_config.json: {"format_version": 1, "backbone_fingerprint": "...", "exits": [every key of ExitSpec]}.
// Reading back gives an equal config; another version or any problem is a UserError.
std::string write_exits_config(const ExitsConfig& config);
ExitsConfig read_exits_config(const std::filesystem::path& file, int64_t layers);

}  // namespace ee::config
