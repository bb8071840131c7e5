#include "ee/train/trainer.h"

#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>

#include <chrono>

#include "ee/base/text.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/comm/device.h"
#include "ee/train/cost.h"
#include "ee/train/engine.h"
#include "ee/train/evaluation.h"
#include "process.h"
#include "resume.h"
#include "run_log.h"

namespace ee::train {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::vector<int64_t> layers_of(const std::vector<config::ExitSpec>& specs) {
  std::vector<int64_t> layers;
  for (const auto& spec : specs) layers.push_back(spec.layer);
  return layers;
}

// What exits.safetensors holds now, and will hold in the output.
at::ScalarType stored_dtype(const checkpoint::ModelFolder& folder) {
  const auto& files = folder.exit_files();
  return checkpoint::to_torch(files.at(files.names().begin()->first).dtype);
}

Engine load_engine(const Job& job) {
  auto backbone = checkpoint::load_backbone(job.folder, {.device = comm::open_device(job.options.device),
                                                         .precision = job.options.model.precision,
                                                         .layers = job.loaded_layers(),
                                                         .max_positions = job.options.batch.sequence_length});
  auto exits = checkpoint::load_exits(job.folder, backbone, layers_of(job.exits), at::kFloat);
  for (size_t i = 0; i < exits.size(); ++i) exits[i].spec = job.exits[i];  // with the overrides
  return {std::move(backbone), std::move(exits), job.options, job.steps};
}

class Run {
 public:
  Run(const Job& job, const std::optional<checkpoint::TrainingCheckpoint>& checkpoint,
      const base::StopSignal& stop)
      : job_(job), stop_(stop), state_(describe_run(job)), engine_(load_engine(job)), log_(job) {
    if (!checkpoint) {
      log_.event(0, "start");
      return;
    }
    restore(*checkpoint, engine_.groups());
    auto echo = std::move(state_.config_echo);
    state_ = checkpoint->state;
    state_.config_echo = std::move(echo);
    saved_step_ = state_.step;
    log_.event(state_.step, "resume");
    log_.message(fmt::format("resumed at step {} of {}", state_.step, job.steps));
  }

  int operator()() {
    if (state_.step == 0 && job_.options.evaluation.at_start) evaluate();
    while (!stop_.requested() && state_.step < job_.steps) {
      step();
      const int64_t every = job_.options.evaluation.every_steps;
      if (every > 0 && state_.step % every == 0 && state_.step < job_.steps) evaluate();
      if (checkpoint_due()) save();
    }
    if (!stop_.requested() && !state_.metric) evaluate();
    if (state_.step != saved_step_) save();
    if (stop_.requested()) return stopped();
    write_output();
    return 0;
  }

 private:
  void step() {
    const auto begin = Clock::now();
    const auto result = engine_.step(job_.training, state_.step);
    ++state_.step;
    state_.samples_consumed = state_.step * job_.options.batch.global_batch;
    state_.metric.reset();
    log_.step(state_.step, result, seconds_since(begin));
  }

  void evaluate() {
    if (!job_.validation) return;
    const auto result = train::evaluate(engine_.backbone(), engine_.exits(), *job_.validation,
                                        job_.options.evaluation.sequences, job_.options.batch.micro_batch,
                                        [this] { return stop_.requested(); });
    if (!result) return;
    log_.evaluation(state_.step, *result);
    state_.metric = result->mean_loss();
    state_.best_metric = std::min(state_.best_metric.value_or(*state_.metric), *state_.metric);
    saved_step_ = state_.step == saved_step_ ? -1 : saved_step_;  // the saved state lacks the metric
  }

  bool checkpoint_due() const {
    const auto& options = job_.options.checkpoint;
    return (options.every_steps > 0 && state_.step % options.every_steps == 0) ||
           (options.every_minutes > 0 && seconds_since(saved_at_) >= 60 * options.every_minutes);
  }

  void save() {
    const auto& options = job_.options.checkpoint;
    checkpoint::save_training_state(options.directory, collect(engine_.groups(), state_));
    checkpoint::prune_training_states(options.directory, options.keep_last, options.keep_best);
    saved_at_ = Clock::now();
    saved_step_ = state_.step;
    log_.event(state_.step, "checkpoint");
  }

  int stopped() {
    log_.event(state_.step, "stop");
    log_.message(fmt::format("stopped by signal {} after step {} of {}; continue with --resume auto",
                             stop_.number(), state_.step, job_.steps));
    return stop_.exit_code();
  }

  // All exits of the model: the trained ones as they are now, the others as they were.
  void write_output() {
    auto all = checkpoint::load_exits(job_.folder, engine_.backbone(), {}, at::kFloat);
    for (auto& exit : all)
      for (const auto& trained : engine_.exits())
        if (trained.spec.layer == exit.spec.layer) exit = trained;
    checkpoint::write_model_folder(job_.folder, all, job_.options.output, stored_dtype(job_.folder));
    log_.event(state_.step, "end");
    log_.message(fmt::format("wrote {}", job_.options.output));
  }

  const Job& job_;
  const base::StopSignal& stop_;
  checkpoint::TrainingState state_;
  Engine engine_;
  RunLog log_;
  Clock::time_point saved_at_ = Clock::now();
  int64_t saved_step_ = 0;  // of the newest checkpoint; none is needed at step 0
};

}  // namespace

int run_job(const Job& job, const std::string& resume, const base::StopSignal& stop) {
  keep_freed_memory();
  at::set_num_threads(static_cast<int>(job.options.threads));
  const auto checkpoint =
      find_checkpoint(job, resume, [](const std::string& text) { spdlog::warn("warning: {}", text); });
  return Run(job, checkpoint, stop)();
}

}  // namespace ee::train
