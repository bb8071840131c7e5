// What an early exit is (EE-LLM section 3, EE-Tuning section 3.1), and ee_config.json.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
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
  linear,  // a translator, then norm + output embedding (the tuned lens of Belrose et al. 2023)
  layer,  // a copy of the model's last decoder layer on the exit layer's output; then norm + output embedding
};
enum class ExitPosition { after, before };  // of the 1-based layer; "before L" taps what "after L-1" taps
enum class HeadKind { own, shared };        // output embedding: copied and trained, or the backbone's, frozen
enum class NormKind { none, own, shared };  // norm in front of the output embedding
enum class InitKind {
  copy,
  random,  // normal 0.02, output projections scaled by 1/sqrt(2*layer)
  fit,     // copied, then the linear last step is solved on text: train/fit.h
};
// An affine map of the residual stream that the exit goes on with: of a layer's output, or for mlp exits of
// the post-attention stream that the MLP's output is added to.
enum class TranslatorKind {
  none,
  full,      // x W^T + b, W [hidden, hidden]
  low_rank,  // x * scale + up(down(x)) + b, with translator_rank numbers in between
};

constexpr std::array<EnumName<ExitKind>, 5> enum_names(ExitKind) {
  return {{{ExitKind::embedding, "embedding"},
           {ExitKind::norm, "norm"},
           {ExitKind::mlp, "mlp"},
           {ExitKind::linear, "linear"},
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
constexpr std::array<EnumName<InitKind>, 3> enum_names(InitKind) {
  return {{{InitKind::copy, "copy"}, {InitKind::random, "random"}, {InitKind::fit, "fit"}}};
}
constexpr std::array<EnumName<TranslatorKind>, 3> enum_names(TranslatorKind) {
  return {{{TranslatorKind::none, "none"},
           {TranslatorKind::full, "full"},
           {TranslatorKind::low_rank, "low_rank"}}};
}

struct ExitSpec {
  int64_t layer = 0;  // 1-based; unique within a model
  ExitKind kind = ExitKind::mlp;
  ExitPosition position = ExitPosition::after;  // mlp exits are always `after`, as in EE-LLM
  HeadKind head = HeadKind::shared;
  NormKind norm = NormKind::own;                     // embedding exits default to none, all others to own
  TranslatorKind translator = TranslatorKind::none;  // linear exits default to full
  int64_t translator_rank = 64;                      // of a low_rank one
  InitKind init = InitKind::copy;
  double weight = 1.0;       // of this exit's loss
  double temperature = 1.0;  // divides the logits before softmax, in training and for the confidence

  // How many backbone layers run before this exit can be evaluated.
  int64_t depth() const { return position == ExitPosition::after ? layer : layer - 1; }
  bool has_translator() const { return translator != TranslatorKind::none; }
  // What a fit solves: a translator, or the down projection of an MLP.
  bool has_linear_last_step() const { return has_translator() || kind == ExitKind::mlp; }
  bool operator==(const ExitSpec&) const = default;
};

template <typename Visitor>
void visit(Visitor& v, ExitSpec& o) {
  v(o.layer, "layer", "1-based backbone layer", Limits{.min = 1, .required = true});
  v(o.kind, "kind", "what stands between the layer and the exit's norm");
  v(o.position, "position", "of the exit relative to the layer");
  v(o.head, "head", "output embedding: a trained copy, or the backbone's");
  v(o.norm, "norm", "norm in front of the output embedding");
  v(o.translator, "translator", "affine map of the residual stream in front of the norm");
  v(o.translator_rank, "translator_rank", "rank of a low_rank translator", at_least(1));
  v(o.init, "init", "weights copied from the backbone, random, or fitted on text");
  v(o.weight, "weight", "of this exit's loss", at_least(0));
  v(o.temperature, "temperature", "divides the logits", more_than(0));
}

// What an exit is judged by when it may make a token.
enum class ExitPolicy {
  confidence,  // its largest probability
  gate,        // its gate's probability that the final layer agrees (exits/exit_gate.h)
};
constexpr std::array<EnumName<ExitPolicy>, 2> enum_names(ExitPolicy) {
  return {{{ExitPolicy::confidence, "confidence"}, {ExitPolicy::gate, "gate"}}};
}

// From where on one exit makes a token.
struct ExitRule {
  int64_t layer = 0;
  double threshold = 1.0;  // of the policy's probability; 1: never
  double ask = 0.0;        // policy gate: the gate's probability in front of the output embedding below which
                           // the embedding is not evaluated

  bool operator==(const ExitRule&) const = default;
};

template <typename Visitor>
void visit(Visitor& v, ExitRule& o) {
  v(o.layer, "layer", "of the exit", Limits{.min = 1, .required = true});
  v(o.threshold, "threshold", "probability from which the exit makes the token; 1: never", fraction());
  v(o.ask, "ask", "probability in front of the output embedding from which it is evaluated", fraction());
}

// Rules that keep a wanted agreement with the final layer, as `ee-tune calibrate` found them.
struct QualityLevel {
  double agreement = 0.0;   // at least this share of all tokens is the final layer's
  double confidence = 0.0;  // with at least this probability over the choice of the text calibrated on
  ExitPolicy policy = ExitPolicy::confidence;
  std::vector<ExitRule> exits;  // all of the model, ascending by layer

  bool operator==(const QualityLevel&) const = default;
};

template <typename Visitor>
void visit(Visitor& v, QualityLevel& o) {
  v(o.agreement, "agreement", "share of all tokens that are the final layer's", fraction());
  v(o.confidence, "confidence", "probability that this holds on fresh text", fraction());
  v(o.policy, "policy", "what an exit is judged by");
  v.list(o.exits, "exits", "from where on each exit makes a token");
}

// What every byte of a model's tensors is proved by: tensor name -> 32 hex digits (checkpoint/README.md says
// of what).
struct Checksums {
  std::map<std::string, std::string> backbone, exits, gates;

  std::string digest() const;  // of all three; stored beside them, so that they cannot change unseen either
  bool operator==(const Checksums&) const = default;
};

struct ExitsConfig {
  std::vector<ExitSpec> exits;              // sorted by layer
  std::string backbone_fingerprint;         // of checkpoint::fingerprint()
  std::vector<QualityLevel> quality = {};   // of these weights: tuning writes none
  std::optional<Checksums> checksums = {};  // format version 2 has them, 1 has none

  bool operator==(const ExitsConfig&) const = default;
};

std::string_view to_string(ExitKind);
std::string_view to_string(ExitPosition);
std::string_view to_string(HeadKind);
std::string_view to_string(NormKind);
std::string_view to_string(InitKind);
std::string_view to_string(TranslatorKind);

// Each parse_* is the inverse of to_string; UserError with the list of known names and the nearest one.
ExitKind parse_exit_kind(std::string_view);
ExitPosition parse_exit_position(std::string_view);
HeadKind parse_head_kind(std::string_view);
NormKind parse_norm_kind(std::string_view);
InitKind parse_init_kind(std::string_view);
TranslatorKind parse_translator_kind(std::string_view);

// Norm and translator of an exit whose kind alone is said.
void set_defaults_of_kind(ExitSpec& spec);

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

// ee_config.json: {"format_version": 2, "backbone_fingerprint": "...", "exits": [every key of ExitSpec],
// "checksums": {"digest": "...", "backbone": {name: checksum}, "exits": {...}, "gates": {...}}} and, once
// calibrated, "quality": [every key of QualityLevel]; version 1 is the same without checksums. Reading back
// gives an equal config; another version or any problem is a UserError.
std::string write_exits_config(const ExitsConfig& config);
ExitsConfig read_exits_config(const std::filesystem::path& file, int64_t layers);

}  // namespace ee::config
