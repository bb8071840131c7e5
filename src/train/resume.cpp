#include "ee/train/resume.h"

#include <nlohmann/json.hpp>

#include "ee/base/text.h"
#include "ee/config/tune_config.h"

namespace ee::train {
namespace fs = std::filesystem;
using base::UserError;
using checkpoint::TrainingCheckpoint, checkpoint::TrainingState;

namespace {

// Options that decide neither which numbers are computed nor in which order; the model and the training text
// are compared by content instead.
config::TuneOptions without_neutral(config::TuneOptions options) {
  const config::TuneOptions neutral;
  options.model.path.clear();
  options.model.verify = neutral.model.verify;
  options.output.clear();
  options.data.train.clear();
  options.data.validation.clear();
  options.data.cache.clear();
  options.data.threads = 0;
  options.checkpoint = neutral.checkpoint;
  options.evaluation = neutral.evaluation;
  options.logging = neutral.logging;
  options.parallel = neutral.parallel;
  return options;
}

// "optimizer.lr (0.001 there, 0.01 now)", for every option that differs; of only a warning's worth: the run's
// length and the number of threads.
void compare_options(const config::TuneOptions& then, const config::TuneOptions& now,
                     const std::string& where, const Warn& warn) {
  const auto flat = [](const config::TuneOptions& options) {
    return nlohmann::json::parse(config::print_tune_config(without_neutral(options))).flatten();
  };
  const auto before = flat(then), after = flat(now);
  std::vector<std::string> refused;
  auto keys = before;
  keys.update(after);
  for (const auto& [key, ignored] : keys.items()) {
    const auto a = before.value(key, nlohmann::json()), b = after.value(key, nlohmann::json());
    if (a == b) continue;
    std::string name = key.substr(1);
    for (char& c : name) c = c == '/' ? '.' : c;
    const auto difference = fmt::format("{} ({} there, {} now)", name, a.dump(), b.dump());
    if (name == "steps" || name == "tokens" || name == "epochs" || name == "threads")
      warn(fmt::format("resuming with another {}; the result is not that of one uninterrupted run",
                       difference));
    else
      refused.push_back(difference);
  }
  if (!refused.empty())
    throw UserError(
        "checkpoint {} was made with other options: {}; use those, or start over with another "
        "checkpoint.directory",
        where, base::join(refused, ", "));
}

void check_belongs(const Job& job, const TrainingState& state, const std::string& where, const Warn& warn) {
  const auto expected = describe_run(job);
  // A checkpoint from before there were checksums has the fingerprint.
  if (state.model_fingerprint != expected.model_fingerprint &&
      state.model_fingerprint != job.folder.exits().backbone_fingerprint)
    throw UserError("checkpoint {} belongs to another model than {} (fingerprint {}, expected {})", where,
                    job.folder.path().string(), state.model_fingerprint, expected.model_fingerprint);
  compare_options(config::parse_tune_config(state.config_echo, where, {}), job.options, where, warn);
  if (state.rng != expected.rng)
    throw UserError(
        "checkpoint {} belongs to other training text ({}, now {}); restore data.train, or start over "
        "with another checkpoint.directory",
        where, state.rng, expected.rng);
  if (state.step > job.steps)
    throw UserError("checkpoint {} is at step {}, but the run has only {} steps", where, state.step,
                    job.steps);
}

int64_t step_of(const fs::path& checkpoint) { return checkpoint::open_training_state(checkpoint).state.step; }

}  // namespace

std::optional<TrainingCheckpoint> find_checkpoint(const Job& job, const std::string& resume,
                                                  const Warn& warn) {
  const fs::path root = job.options.checkpoint.directory;
  const auto latest = checkpoint::find_latest_training_state(root, warn);
  if (resume == "none") {
    if (latest)
      throw UserError(
          "checkpoints of an earlier run are in {}; continue it with --resume auto, or remove them",
          root.string());
    return std::nullopt;
  }
  if (resume == "auto" && !latest) return std::nullopt;
  const fs::path chosen = resume == "auto" ? *latest : fs::path(resume);
  auto checkpoint = checkpoint::open_training_state(chosen);
  if (latest && *latest != chosen && step_of(*latest) > checkpoint.state.step)
    throw UserError(
        "{} is newer than {}; remove it, or choose another checkpoint.directory to go on from there",
        latest->string(), chosen.string());
  check_belongs(job, checkpoint.state, chosen.string(), warn);
  return checkpoint;
}

TrainingState describe_run(const Job& job) {
  TrainingState state;
  state.rng = fmt::format("order of seed {} over corpus {}", job.options.seed, job.corpus->fingerprint());
  state.config_echo = config::print_tune_config(job.options);
  state.model_fingerprint = job.folder.backbone_digest();
  return state;
}

}  // namespace ee::train
