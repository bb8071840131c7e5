// tune.json: every option of ee-tune, declared once. Reading, --set, --print-config, the reference in the
// README, the echo in checkpoints and the check for unknown keys are visitors over the visit() functions
// below.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ee::config {

enum class Precision { stored, f32, bf16 };           // stored: as the checkpoint has it
enum class TokenWeights { uniform, confidence };      // confidence: the exit's own detached top probability
enum class WeightShape { constant, linear, cosine };  // how a warm-up or cool-down of exit weights goes
enum class DecayShape { constant, linear, cosine };
enum class ClipMode { per_exit, global, none };

struct ModelOptions {
  std::string path;
  Precision precision = Precision::stored;
  bool operator==(const ModelOptions&) const = default;
};

struct DataOptions {
  std::vector<std::string> train;
  std::vector<std::string> validation;  // empty: split off from train
  double validation_fraction = 0.02;
  std::string cache;  // empty: <output>.cache
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

struct ExitsOptions {
  std::vector<int64_t> train;  // layers; empty: all
  std::vector<ExitOverride> overrides;
  TokenWeights token_weights = TokenWeights::uniform;
  double gradient_filter = 1.0 / 16384;
  WeightScheduleOptions weight_schedule;
  bool operator==(const ExitsOptions&) const = default;
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

struct LoggingOptions {
  int64_t every_steps = 10;
  std::string directory;  // empty: <output>.logs
  bool tensorboard = true;
  bool operator==(const LoggingOptions&) const = default;
};

struct TuneOptions {
  ModelOptions model;
  std::string output;
  DataOptions data;
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
  CheckpointOptions checkpoint;
  EvaluationOptions evaluation;
  LoggingOptions logging;
  bool operator==(const TuneOptions&) const = default;
};

}  // namespace ee::config
