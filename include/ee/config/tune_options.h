// tune.json: every option of ee-tune. The structs hold values and defaults; the visit() functions below them
// declare each option once: name, meaning, limits. Reading, --set, --print-config, the reference in the
// README, the echo in checkpoints and the checks are visitors over these declarations (see tune_config.h).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ee/config/declare.h"

namespace ee::config {

enum class Precision { stored, f32, bf16 };           // stored: as the checkpoint has it
enum class TokenWeights { uniform, confidence };      // confidence: the exit's own detached top probability
enum class WeightShape { constant, linear, cosine };  // how a warm-up or cool-down of exit weights goes
enum class DecayShape { constant, linear, cosine };
enum class ClipMode { per_exit, global, none };
enum class ExitStart { stored, fit };  // weights that training starts from: the folder's, or fitted on text
enum class PipelineSchedule { streaming, flush };  // flush: the pipeline is empty at the end of each step
enum class TrainMode { exits, all };               // all: the backbone as well (EE-LLM)
enum class HiftOrder { bottom_up, top_down, random };

constexpr std::array<EnumName<Precision>, 3> enum_names(Precision) {
  return {{{Precision::stored, "stored"}, {Precision::f32, "f32"}, {Precision::bf16, "bf16"}}};
}
constexpr std::array<EnumName<TokenWeights>, 2> enum_names(TokenWeights) {
  return {{{TokenWeights::uniform, "uniform"}, {TokenWeights::confidence, "confidence"}}};
}
constexpr std::array<EnumName<WeightShape>, 3> enum_names(WeightShape) {
  return {{{WeightShape::constant, "constant"},
           {WeightShape::linear, "linear"},
           {WeightShape::cosine, "cosine"}}};
}
constexpr std::array<EnumName<DecayShape>, 3> enum_names(DecayShape) {
  return {
      {{DecayShape::constant, "constant"}, {DecayShape::linear, "linear"}, {DecayShape::cosine, "cosine"}}};
}
constexpr std::array<EnumName<ClipMode>, 3> enum_names(ClipMode) {
  return {{{ClipMode::per_exit, "per_exit"}, {ClipMode::global, "global"}, {ClipMode::none, "none"}}};
}

constexpr std::array<EnumName<ExitStart>, 2> enum_names(ExitStart) {
  return {{{ExitStart::stored, "stored"}, {ExitStart::fit, "fit"}}};
}

constexpr std::array<EnumName<PipelineSchedule>, 2> enum_names(PipelineSchedule) {
  return {{{PipelineSchedule::streaming, "streaming"}, {PipelineSchedule::flush, "flush"}}};
}

constexpr std::array<EnumName<TrainMode>, 2> enum_names(TrainMode) {
  return {{{TrainMode::exits, "exits"}, {TrainMode::all, "all"}}};
}
constexpr std::array<EnumName<HiftOrder>, 3> enum_names(HiftOrder) {
  return {{{HiftOrder::bottom_up, "bottom_up"},
           {HiftOrder::top_down, "top_down"},
           {HiftOrder::random, "random"}}};
}

struct ModelOptions {
  std::string path;
  Precision precision = Precision::stored;
  bool verify = true;
  bool operator==(const ModelOptions&) const = default;
};

struct DataOptions {
  std::vector<std::string> train;
  std::vector<std::string> validation;  // empty: split off from train
  double validation_fraction = 0.02;
  std::string cache;  // empty: <output>.cache
  bool exit_inputs = false;
  int64_t threads = 0;
  bool shuffle = true;
  bool operator==(const DataOptions&) const = default;
};

struct ExitOverride {
  int64_t layer = 0;
  std::optional<double> weight;
  std::optional<double> temperature;
  bool operator==(const ExitOverride&) const = default;
};

struct WeightScheduleOptions {  // EE-LLM section 3.3: exit weights that change during training
  WeightShape shape = WeightShape::constant;
  double warmup_fraction = 0.0;    // of all steps: weights rise from `initial` to 1 x weight
  double cooldown_fraction = 0.0;  // of all steps, at the end: weights fall to `final`
  double initial = 0.0;
  double final = 0.0;
  bool operator==(const WeightScheduleOptions&) const = default;
};

struct LossOptions {  // factors of the terms of each exit's loss
  double cross_entropy = 1.0;
  double kl = 0.0;
  double kl_temperature = 1.0;
  double hidden = 0.0;

  // Whether a term asks for the model's last layer.
  bool needs_teacher() const { return kl > 0 || hidden > 0; }
  bool operator==(const LossOptions&) const = default;
};

struct ExitsOptions {
  std::vector<int64_t> train;  // layers; empty: all
  ExitStart init = ExitStart::stored;
  int64_t fit_tokens = 50000;
  LossOptions loss;
  std::vector<ExitOverride> overrides;
  TokenWeights token_weights = TokenWeights::uniform;
  double gradient_filter = 1.0 / 16384;
  WeightScheduleOptions weight_schedule;
  bool operator==(const ExitsOptions&) const = default;
};

struct HiftOptions {   // hierarchical full-parameter tuning (arXiv 2401.15207)
  int64_t groups = 0;  // 0: all layers in every step
  HiftOrder order = HiftOrder::bottom_up;
  bool operator==(const HiftOptions&) const = default;
};

struct TrainOptions {
  static constexpr const char* kShorthand = "mode";  // "train": "all" says {"mode": "all"}

  std::optional<TrainMode> mode;  // none: exits, or all where hift has groups
  bool recompute = true;
  double final_weight = 1.0;
  HiftOptions hift;

  bool backbone() const { return mode.value_or(TrainMode::exits) == TrainMode::all || hift.groups > 0; }
  bool operator==(const TrainOptions&) const = default;
};

struct OptimizerOptions {
  double lr = 1e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-5;
  double weight_decay = 0.01;
  ClipMode clip = ClipMode::per_exit;
  double clip_norm = 1.0;
  bool operator==(const OptimizerOptions&) const = default;
};

struct ScheduleOptions {
  int64_t warmup_steps = 0;
  double warmup_fraction = 0.0;  // of all steps; used when warmup_steps is 0
  DecayShape decay = DecayShape::cosine;
  double min_lr = 0.0;
  bool operator==(const ScheduleOptions&) const = default;
};

struct BatchOptions {
  int64_t sequence_length = 512;
  int64_t micro_batch = 2;
  int64_t global_batch = 2;  // sequences a step; a multiple of micro_batch
  bool operator==(const BatchOptions&) const = default;
};

struct ParallelOptions {  // processes as a grid: tensor x pipeline x data of them
  int64_t tensor = 1;
  int64_t pipeline = 1;
  int64_t data = 0;  // 0: as many as there are processes for
  bool sequence = false;
  bool shard_optimizer = false;
  PipelineSchedule schedule = PipelineSchedule::streaming;
  int64_t in_flight = 2;
  double timeout_seconds = 60.0;
  bool operator==(const ParallelOptions&) const = default;
};

struct CheckpointOptions {
  std::string directory;  // empty: <output>.checkpoints
  int64_t every_steps = 0;
  double every_minutes = 10.0;
  int64_t keep_last = 2;
  bool keep_best = true;
  bool operator==(const CheckpointOptions&) const = default;
};

struct EvaluationOptions {
  int64_t every_steps = 0;  // 0: only at the end
  int64_t sequences = 16;
  bool at_start = true;
  bool operator==(const EvaluationOptions&) const = default;
};

struct GateOptions {
  bool train = false;
  int64_t tokens = 16384;
  bool operator==(const GateOptions&) const = default;
};

struct LoggingOptions {
  int64_t every_steps = 10;
  std::string directory;  // empty: <output>.logs
  bool tensorboard = true;
  bool all_ranks = false;
  bool operator==(const LoggingOptions&) const = default;
};

struct TuneOptions {
  ModelOptions model;
  std::string output;
  DataOptions data;
  TrainOptions train;
  ExitsOptions exits;
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
  BatchOptions batch;
  int64_t steps = 0;  // exactly one of steps, tokens, epochs
  int64_t tokens = 0;
  double epochs = 0.0;
  int64_t seed = 1234;
  int64_t threads = 0;
  std::string device = "cpu";
  ParallelOptions parallel;
  CheckpointOptions checkpoint;
  EvaluationOptions evaluation;
  GateOptions gate;
  LoggingOptions logging;
  bool operator==(const TuneOptions&) const = default;
};

// The declarations. A visitor has three calls:
//   v(field, "key", "meaning", limits)        one option
//   v.section(struct, "key", "meaning")       an object of options, declared by its own visit()
//   v.list(vector<struct>, "key", "meaning")  a list of such objects

template <typename Visitor>
void visit(Visitor& v, ModelOptions& o) {
  v(o.path, "path", "folder of a model with exits, as ee-convert attach writes it", required());
  v(o.precision, "precision", "dtype of backbone and computation; stored: as the checkpoint has it");
  v(o.verify, "verify",
    "compare every tensor with its checksum, unless these very files have been compared before");
}

template <typename Visitor>
void visit(Visitor& v, DataOptions& o) {
  v(o.train, "train",
    "text files, files of JSON records (.jsonl, .ndjson, .json) with text or tokens in each, or folders of "
    "them; "
    "also as .gz or .zst",
    required());
  v(o.validation, "validation", "held-out files or folders; empty: split off from train");
  v(o.validation_fraction, "validation_fraction",
    "share of train's tokens that is held out when validation is empty", below_one());
  v(o.cache, "cache", "folder for tokenized data; empty: the output's name + .cache");
  v(o.exit_inputs, "exit_inputs",
    "keep what the exits read of each sequence in data.cache and run the backbone once for it, not in every "
    "epoch and every run");
  v(o.threads, "threads", "threads that tokenize; 0: all cores that affinity and CPU quota leave",
    at_least(0));
  v(o.shuffle, "shuffle", "seeded shuffle of the sequences in each epoch");
}

template <typename Visitor>
void visit(Visitor& v, ExitOverride& o) {
  v(o.layer, "layer", "exit that the override is for", Limits{.min = 1, .required = true});
  v(o.weight, "weight", "loss weight in place of the checkpoint's", at_least(0));
  v(o.temperature, "temperature", "temperature in place of the checkpoint's", more_than(0));
}

template <typename Visitor>
void visit(Visitor& v, WeightScheduleOptions& o) {
  v(o.shape, "shape", "course of warm-up and cool-down; constant: weights do not change");
  v(o.warmup_fraction, "warmup_fraction",
    "share of the steps in which weights rise from initial to 1 x weight", fraction());
  v(o.cooldown_fraction, "cooldown_fraction",
    "share of the steps, at the end, in which weights fall to final", fraction());
  v(o.initial, "initial", "factor of the weights at the first step of a warm-up", at_least(0));
  v(o.final, "final", "factor of the weights at the last step of a cool-down", at_least(0));
}

template <typename Visitor>
void visit(Visitor& v, LossOptions& o) {
  v(o.cross_entropy, "cross_entropy", "factor of the cross entropy with the next token", at_least(0));
  v(o.kl, "kl", "factor of the divergence from the final layer's distribution", at_least(0));
  v(o.kl_temperature, "kl_temperature",
    "divides both logits of the divergence, which then counts by its square", more_than(0));
  v(o.hidden, "hidden", "factor of the mean squared distance to the final normalized hidden state",
    at_least(0));
}

template <typename Visitor>
void visit(Visitor& v, ExitsOptions& o) {
  v(o.train, "train", "layers of the exits to train; empty: all", at_least(1));
  v(o.init, "init",
    "weights that training starts from: as stored, or fitted: the exits' linear last steps solved on text");
  v(o.fit_tokens, "fit_tokens", "training tokens that a fit looks at", at_least(1));
  v.section(o.loss, "loss", "what an exit is trained for; factors of its terms");
  v.list(o.overrides, "overrides", "values that replace the checkpoint's for this run and in its result");
  v(o.token_weights, "token_weights",
    "confidence: each token's loss counts by the exit's own top probability (dynamic token weighting)");
  v(o.gradient_filter, "gradient_filter",
    "softmax gradients below this are dropped, which saves most of the backward pass; 0: exact", below_one());
  v.section(o.weight_schedule, "weight_schedule", "exit weights that change during training");
}

template <typename Visitor>
void visit(Visitor& v, HiftOptions& o) {
  v(o.groups, "groups",
    "embedding, layers and head in this many groups, of which each step trains one in turn; the learning "
    "rate "
    "moves on when all had their turn; 0: every step trains all",
    at_least(0));
  v(o.order, "order", "of the groups; random: drawn once, from the seed");
}

template <typename Visitor>
void visit(Visitor& v, TrainOptions& o) {
  v(o.mode, "mode",
    "exits: on the frozen backbone; all: every parameter of the model; \"train\": \"all\" is short for it, "
    "and "
    "hift.groups implies it");
  v(o.recompute, "recompute",
    "with mode all: run each layer again in the backward pass and keep only its input until then; false: "
    "faster, but holds all layers' activations");
  v(o.final_weight, "final_weight", "with mode all: weight of the final layer's loss beside the exits'",
    at_least(0));
  v.section(o.hift, "hift", "one group of layers at a time, which needs less memory");
}

template <typename Visitor>
void visit(Visitor& v, OptimizerOptions& o) {
  v(o.lr, "lr", "peak learning rate of AdamW", more_than(0));
  v(o.beta1, "beta1", "decay of the gradient's running mean", below_one());
  v(o.beta2, "beta2", "decay of the squared gradient's running mean", below_one());
  v(o.eps, "eps", "added to the root of the second moment", more_than(0));
  v(o.weight_decay, "weight_decay", "decoupled weight decay of matrices; norm weights and biases have none",
    at_least(0));
  v(o.clip, "clip",
    "gradient norm that is limited: of each exit alone (and each layer, where they are trained), of all "
    "together, or none");
  v(o.clip_norm, "clip_norm", "limit of that gradient norm", more_than(0));
}

template <typename Visitor>
void visit(Visitor& v, ScheduleOptions& o) {
  v(o.warmup_steps, "warmup_steps", "steps in which the learning rate rises from 0", at_least(0));
  v(o.warmup_fraction, "warmup_fraction", "the same as a share of all steps, in place of warmup_steps",
    fraction());
  v(o.decay, "decay", "course of the learning rate after the warm-up");
  v(o.min_lr, "min_lr", "learning rate at which the decay ends", at_least(0));
}

template <typename Visitor>
void visit(Visitor& v, BatchOptions& o) {
  v(o.sequence_length, "sequence_length", "tokens in a sequence", at_least(2));
  v(o.micro_batch, "micro_batch", "sequences that are computed at a time", at_least(1));
  v(o.global_batch, "global_batch", "sequences a step; a multiple of micro_batch", at_least(1));
}

template <typename Visitor>
void visit(Visitor& v, ParallelOptions& o) {
  v(o.tensor, "tensor", "ranks that split every matrix (tensor parallelism)", at_least(1));
  v(o.pipeline, "pipeline", "stages that split the layers, balanced by cost (pipeline parallelism)",
    at_least(1));
  v(o.data, "data",
    "replicas that share the micro-batches of a step (data parallelism); 0: all processes that tensor and "
    "pipeline leave",
    at_least(0));
  v(o.sequence, "sequence", "tensor ranks also split norms and the residual stream, along the tokens");
  v(o.shard_optimizer, "shard_optimizer", "replicas share the optimizer's state (ZeRO-1)");
  v(o.schedule, "schedule",
    "streaming: stages go on to the next step at once; flush: they wait for the last");
  v(o.in_flight, "in_flight", "micro-batches that may wait between two stages", at_least(1));
  v(o.timeout_seconds, "timeout_seconds", "after a process died or stalled, all others end within this time",
    at_least(1));
}

template <typename Visitor>
void visit(Visitor& v, CheckpointOptions& o) {
  v(o.directory, "directory", "folder of the checkpoints; empty: the output's name + .checkpoints");
  v(o.every_steps, "every_steps", "steps between checkpoints; 0: by time alone", at_least(0));
  v(o.every_minutes, "every_minutes", "minutes between checkpoints; 0: by steps alone", at_least(0));
  v(o.keep_last, "keep_last", "newest checkpoints that are kept", at_least(1));
  v(o.keep_best, "keep_best", "also keep the checkpoint with the lowest held-out loss");
}

template <typename Visitor>
void visit(Visitor& v, EvaluationOptions& o) {
  v(o.every_steps, "every_steps", "steps between evaluations on held-out data; 0: only at the end",
    at_least(0));
  v(o.sequences, "sequences", "held-out sequences in one evaluation", at_least(1));
  v(o.at_start, "at_start", "evaluate before the first step, too");
}

template <typename Visitor>
void visit(Visitor& v, GateOptions& o) {
  v(o.train, "train",
    "at the end fit each exit's gate: will the final layer agree? The first process does it, with the "
    "whole model on its CPU");
  v(o.tokens, "tokens", "held-out tokens that the gates are fitted on, at most", at_least(1));
}

template <typename Visitor>
void visit(Visitor& v, LoggingOptions& o) {
  v(o.every_steps, "every_steps", "steps between log lines", at_least(1));
  v(o.directory, "directory", "folder of metrics.jsonl and event files; empty: the output's name + .logs");
  v(o.tensorboard, "tensorboard", "write TensorBoard event files");
  v(o.all_ranks, "all_ranks",
    "every process prints its own line: time of a step, time spent waiting, memory");
}

template <typename Visitor>
void visit(Visitor& v, TuneOptions& o) {
  v.section(o.model, "model", "what is tuned");
  v(o.output, "output", "folder of the tuned model; must not exist", required());
  v.section(o.data, "data", "text to tune on");
  v.section(o.train, "train", "the exits alone, or the whole model with them");
  v.section(o.exits, "exits", "which exits are tuned, and their losses");
  v.section(o.optimizer, "optimizer", "AdamW over what is trained");
  v.section(o.schedule, "schedule", "learning rate over the steps");
  v.section(o.batch, "batch", "tokens in a step");
  v(o.steps, "steps", "length of the run in steps; give exactly one of steps, tokens, epochs", at_least(0));
  v(o.tokens, "tokens", "length of the run in training tokens, rounded up to whole steps", at_least(0));
  v(o.epochs, "epochs", "length of the run in passes over the training data", at_least(0));
  v(o.seed, "seed", "of shuffling and of everything else that is random", at_least(0));
  v(o.threads, "threads", "threads that compute; 0: all cores that affinity and CPU quota leave",
    at_least(0));
  v(o.device, "device", "where to compute: cpu, cuda or cuda:N", required());
  v.section(o.parallel, "parallel", "how several processes share the work; any grid gives the same result");
  v.section(o.checkpoint, "checkpoint", "states to resume from");
  v.section(o.evaluation, "evaluation", "loss, perplexity and agreement with the final layer");
  v.section(o.gate, "gate", "predictors of agreement with the final layer, for ee-infer --policy gate");
  v.section(o.logging, "logging", "what is written about the run");
}

}  // namespace ee::config
