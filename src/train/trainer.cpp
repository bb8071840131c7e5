#include "ee/train/trainer.h"

#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>

#include <chrono>

#include "control.h"
#include "ee/base/text.h"
#include "ee/checkpoint/training_state.h"
#include "ee/comm/device.h"
#include "ee/train/engine.h"
#include "ee/train/evaluation.h"
#include "ee/train/fit.h"
#include "ee/train/resume.h"
#include "exit_inputs.h"
#include "grid_state.h"
#include "load_engine.h"
#include "process.h"
#include "run_log.h"

namespace ee::train {

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSecondsBetweenMessages = 30;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// One rank's part in the run. All ranks go through the same steps; what to do between two of them is decided
// by rank 0 and travels down the pipeline in front of the next step (control.h), so no stage waits for a
// later one.
class Run {
 public:
  Run(const Job& job, const std::optional<checkpoint::TrainingCheckpoint>& checkpoint,
      const base::StopSignal& stop, comm::World* world, const parallel::Ranks* ranks)
      : job_(job),
        stop_(stop),
        world_(world),
        ranks_(ranks),
        state_(describe_run(job)),
        engine_(load_engine(job, ranks)) {
    if (!ranks || ranks->reports()) log_.emplace(job);
    if (!checkpoint) {
      event("start");
      return;
    }
    restore(*checkpoint, job, engine_);
    auto echo = std::move(state_.config_echo);
    state_ = checkpoint->state;
    state_.config_echo = std::move(echo);
    saved_step_ = state_.step;
    event("resume");
    message(fmt::format("resumed at step {} of {}", state_.step, job.steps));
  }

  int operator()() {
    if (!keep_exit_inputs() || !fit()) return stopped(stop_.number());
    for (;;) {
      const auto begin = Clock::now();
      const Control control = exchange_control(engine_, decide(), report_);
      const double waited = seconds_since(begin);  // for the stage before: part of a step
      log_step();
      if (control.evaluate && !evaluate()) continue;  // a signal came
      if (control.save) save();
      if (control.signal != 0) return stopped(control.signal);
      if (control.end) break;
      step(waited);
    }
    write_output();
    leave();
    return 0;
  }

 private:
  // Before the first step; false: a signal came. Likewise the next.
  bool keep_exit_inputs() {
    if (!job_.options.data.exit_inputs) return true;
    const auto begin = Clock::now();
    const auto sequences = visited_sequences(job_);
    message(fmt::format("exit inputs of {} sequences: computing those that {} does not have",
                        sequences.size(), job_.options.data.cache));
    auto told = begin;
    const auto go_on = [&](int64_t done, int64_t of) {
      if (seconds_since(told) >= kSecondsBetweenMessages) {
        message(fmt::format("exit inputs: {} of {} sequences", done, of));
        told = Clock::now();
      }
      return ranks_ || !stop_.requested();
    };
    auto stored = std::make_unique<ExitInputs>(job_);
    if (!stored->fill({engine_.stage(), engine_.backbone(), engine_.exits(), engine_.link()}, ranks_,
                      sequences, job_.options.batch.micro_batch, go_on))
      return false;
    engine_.use(std::move(stored));
    message(fmt::format("exit inputs are there after {:.1f} s", seconds_since(begin)));
    return true;
  }

  bool fit() {
    const auto& options = job_.options;
    if (state_.step > 0 || options.exits.init != config::ExitStart::fit) return true;
    message("fitting the exits");
    const auto result = fit_exits(engine_, job_.exits, job_.training, options.exits.fit_tokens,
                                  options.batch.micro_batch, [this] { return !ranks_ && stop_.requested(); });
    if (!result) return false;
    message(to_table(*result));
    return true;
  }

  // What is due before the next step. Only rank 0's answer counts: clock and signals are its own.
  Control decide() const {
    const auto& evaluation = job_.options.evaluation;
    const int64_t step = state_.step;
    Control control{.signal = stop_.number(), .end = step == job_.steps};
    const bool evaluation_due =
        step == 0 ? evaluation.at_start || control.end
                  : control.end || (evaluation.every_steps > 0 && step % evaluation.every_steps == 0);
    control.evaluate = job_.validation && !state_.metric && evaluation_due && control.signal == 0;
    const bool unsaved = step != saved_step_ || (control.evaluate && step > 0);
    control.save = unsaved && (control.end || control.signal != 0 || checkpoint_due());
    return control;
  }

  bool checkpoint_due() const {
    const auto& options = job_.options.checkpoint;
    return (options.every_steps > 0 && state_.step > 0 && state_.step % options.every_steps == 0) ||
           (options.every_minutes > 0 && seconds_since(saved_at_) >= 60 * options.every_minutes);
  }

  void step(double waited) {
    if (world_) {
      world_->set_context(fmt::format("step {}", state_.step + 1));
      world_->check();
    }
    const auto begin = Clock::now();
    report_ = Report(job_.loss_names().size(), engine_.stage(), engine_.step(job_.training, state_.step));
    ++state_.step;
    step_seconds_ = waited + seconds_since(begin);
    waited_seconds_ = waited;
    report_.step = state_.step;
    state_.samples_consumed = state_.step * job_.options.batch.global_batch;
    state_.metric.reset();
  }

  void log_step() {
    if (log_ && report_.step > 0) log_->step(report_.step, to_result(report_), step_seconds_);
    if (report_.step > 0 && ranks_ && job_.options.logging.all_ranks) log_rank();
    report_.step = 0;  // told
  }

  void log_rank() const {
    if (state_.step % job_.options.logging.every_steps != 0) return;
    const auto& at = ranks_->grid.position();
    spdlog::info(
        "rank {} (tensor {}, stage {}, data {})  step {}: {:.2f} s, {:.2f} s of it until "
        "the stage before let it begin  peak {}",
        ranks_->grid.rank(), at.tensor, at.pipeline, at.data, state_.step, step_seconds_, waited_seconds_,
        base::format_bytes(static_cast<double>(peak_memory())));
  }

  bool evaluate() {
    const auto result =
        train::evaluate(engine_, job_.exits, *job_.validation, job_.options.evaluation.sequences,
                        job_.options.batch.micro_batch, [this] { return !ranks_ && stop_.requested(); });
    if (!result) return false;
    if (log_) log_->evaluation(state_.step, *result);
    state_.metric = result->mean_loss();
    state_.best_metric = std::min(state_.best_metric.value_or(*state_.metric), *state_.metric);
    return true;
  }

  void save() {
    const auto tensors = training_tensors(job_, engine_);
    if (writes()) {
      const auto& options = job_.options.checkpoint;
      checkpoint::save_training_state(options.directory, state_, tensors);
      checkpoint::prune_training_states(
          options.directory,
          {.saved_step = state_.step, .keep_last = options.keep_last, .keep_best = options.keep_best});
    } else {
      take_part(tensors.exits);
      take_part(tensors.optimizer);
    }
    wait_until_written();
    saved_at_ = Clock::now();
    saved_step_ = state_.step;
    event("checkpoint");
  }

  int stopped(int signal) {
    event("stop");
    message(fmt::format("stopped by signal {} after step {} of {}; continue with --resume auto", signal,
                        state_.step, job_.steps));
    leave();
    return 128 + signal;
  }

  void leave() {
    if (engine_.link()) engine_.link()->finish();
  }

  void write_output() {
    write_model(job_, engine_);
    wait_until_written();
    event("end");
    message(fmt::format("wrote {}", job_.options.output));
  }

  // The rank that reports is another one than the one that writes: it must not tell of files that are not
  // there yet, and nobody ends well when they cannot be written.
  void wait_until_written() {
    if (ranks_) ranks_->all.barrier();
  }

  bool writes() const { return !ranks_ || ranks_->is_first(); }
  void event(const char* name) {
    if (log_) log_->event(state_.step, name);
  }
  void message(const std::string& text) {
    if (log_) log_->message(text);
  }

  const Job& job_;
  const base::StopSignal& stop_;
  comm::World* world_;            // null in a single process
  const parallel::Ranks* ranks_;  // likewise
  checkpoint::TrainingState state_;
  Engine engine_;
  std::optional<RunLog> log_;  // on the rank that reports
  Report report_;              // of the last step
  double step_seconds_ = 0, waited_seconds_ = 0;
  Clock::time_point saved_at_ = Clock::now();
  int64_t saved_step_ = 0;  // of the newest checkpoint; none is needed at step 0
};

// Ranks that start from different states would compute nonsense, or wait for each other forever.
void check_agreement(const Job& job, const parallel::Ranks& ranks, int64_t first_step) {
  const std::vector<double> own = {static_cast<double>(first_step), static_cast<double>(job.steps),
                                   static_cast<double>(job.corpus->tokens()),
                                   static_cast<double>(job.training.sequences().size())};
  if (const auto all = parallel::gather_numbers(ranks.all, own, ranks.device); all.front() != own)
    throw base::UserError(
        "rank {} starts at step {} with {} training tokens, but rank 0 at step {} with {}; all machines must "
        "see "
        "the same checkpoints and the same text",
        ranks.grid.rank(), own[0], own[2], all.front()[0], all.front()[2]);
}

int run_on_grid(const Job& job, const std::optional<checkpoint::TrainingCheckpoint>& checkpoint,
                const base::StopSignal& stop, const comm::LaunchInfo& launch) {
  const std::chrono::milliseconds timeout(static_cast<int64_t>(1000 * job.options.parallel.timeout_seconds));
  comm::World world(launch, {.device = comm::open_device(job.device), .peer_timeout = timeout});
  const auto& parallel = job.options.parallel;
  const parallel::Ranks ranks(
      world, job.grid, parallel.sequence,
      parallel::copies_of(job.folder.config(), parallel::Split::kv_heads, job.grid.tensor));
  check_agreement(job, ranks, checkpoint ? checkpoint->state.step : 0);
  Run run(job, checkpoint, stop, &world, &ranks);
  return run();
}

}  // namespace

int run_job(const Job& job, const std::optional<checkpoint::TrainingCheckpoint>& checkpoint,
            const base::StopSignal& stop, const comm::LaunchInfo& launch) {
  keep_freed_memory();
  at::set_num_threads(static_cast<int>(job.options.threads));
  if (launch.world_size > 1) return run_on_grid(job, checkpoint, stop, launch);
  return Run(job, checkpoint, stop, nullptr, nullptr)();
}

}  // namespace ee::train
