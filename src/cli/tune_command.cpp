#include "tune_command.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>

#include "cli_options.h"
#include "ee/base/program.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/comm/device.h"
#include "ee/config/tune_config.h"
#include "ee/eval/calibrate.h"
#include "ee/train/cost.h"
#include "ee/train/resume.h"
#include "ee/train/simulate.h"
#include "ee/train/trainer.h"
#include "infer_model.h"
#include "processes.h"

namespace ee::cli {

namespace {

struct TuneArguments {
  std::string config, resume = "none", device;
  std::vector<std::string> sets;
  std::optional<int64_t> threads, spawn;
  bool print_config = false, dry_run = false, simulate = false, no_verify = false;

  bool parse(const std::vector<std::string>& args) {
    CommandLine line(
        "ee-tune --config FILE [options]",
        "Tunes the exits of a model on its frozen backbone. `ee-tune reference` lists every option of "
        "the configuration file.");
    line.value("config", "FILE", config, "configuration, JSON with comments").required("config");
    line.values("set", "KEY=VALUE", sets, "replaces one option of the file: optimizer.lr=3e-4");
    line.value("resume", "auto|none|PATH", resume,
               "continue from the newest checkpoint, from none, or from this one");
    line.value("threads", "N", threads, "threads that compute; replaces the option `threads`");
    line.value("device", "cpu|cuda|cuda:N", device, "where to compute; replaces the option `device`");
    declare_spawn(line, spawn);
    declare_no_verify(line, no_verify);
    line.flag("print-config", print_config, "print every option with its value and stop");
    line.flag(
        "dry-run", dry_run,
        "check everything, print what the run would cost, and stop; tokenizes the text, reads no weights");
    line.flag("simulate", simulate,
              "with --dry-run: measure this machine's layers and exits, and show what the pipeline schedules "
              "would make of them");
    if (!line.parse(args)) return false;
    if (simulate && !dry_run) throw base::UserError("option --simulate goes with --dry-run");
    if (threads) sets.push_back(fmt::format("threads={}", *threads));
    if (no_verify) sets.push_back("model.verify=false");
    if (!device.empty()) sets.push_back(fmt::format("device={}", device));
    check_spawn(spawn);
    return true;
  }
};

// A dry run shows any grid without its processes.
comm::LaunchInfo find_launch(const TuneArguments& arguments, const config::ParallelOptions& parallel) {
  comm::LaunchInfo launch = comm::detect_launch();
  if (arguments.dry_run && launch.world_size == 1)
    launch.world_size = static_cast<int>(
        arguments.spawn.value_or(parallel.tensor * parallel.pipeline * std::max<int64_t>(1, parallel.data)));
  return launch;
}

// "cuda" gives each process of a machine a GPU of its own. All of them look for the last one's, so that all
// find the same mistake.
void check_device(const std::string& device, const comm::LaunchInfo& launch) {
  const bool several = device == "cuda" && launch.local_world_size > 1;
  comm::open_device(several ? fmt::format("cuda:{}", launch.local_world_size - 1) : device);
}

// So many held-out sequences the gates are fitted on.
int64_t gate_sequences(const train::Job& job) {
  const data::PackedSequences& held_out = job.validation->sequences();
  const int64_t length = held_out.sequence_length();
  return std::min(held_out.size(), (job.options.gate.tokens + length - 1) / length);
}

struct Prepared {
  train::Job job;
  std::optional<checkpoint::TrainingCheckpoint> checkpoint;
};

Prepared prepare(const config::TuneOptions& options, const TuneArguments& arguments,
                 const comm::LaunchInfo& launch) {
  const auto warn = [&](const std::string& text) {
    if (launch.rank == 0) spdlog::warn("warning: {}", text);
  };
  if (!arguments.dry_run) check_device(options.device, launch);  // before the text is read
  config::TuneOptions checked = options;
  checked.model.verify &= !arguments.dry_run;  // which reads no weights
  Prepared prepared{.job = train::prepare_job(checked, launch), .checkpoint = {}};
  if (launch.rank == 0) {
    warn_of_missing_checksums(options.model.path);
    fmt::print("{}", train::describe(prepared.job, train::estimate_cost(prepared.job)));
    std::fflush(stdout);
  }
  if (options.gate.train) {
    if (!prepared.job.validation)
      throw base::UserError("gate.train needs held-out text, but none is held out");
    train::check_learned(*prepared.job.validation, gate_sequences(prepared.job),
                         "the held-out text that gates are fitted on (gate.tokens)");
  }
  if (!arguments.dry_run) prepared.checkpoint = train::find_checkpoint(prepared.job, arguments.resume, warn);
  return prepared;
}

// On held-out text, into the folder that the run has written; by one process with the whole model.
void add_gates(const train::Job& job) {
  const config::TuneOptions& options = job.options;
  infer::Model model = infer::load_model({.folder = options.output,
                                          .precision = options.model.precision,
                                          .exits = {},
                                          .check = checkpoint::Check::never});  // was written just now
  const data::PackedSequences& held_out = job.validation->sequences();
  const int64_t count = gate_sequences(job), learned = job.validation->learned_tokens(0, count);
  const std::vector<int64_t> empty(static_cast<size_t>(held_out.sequence_length()));
  eval::Sequences sequences;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = job.validation->sequence_index(i);
    if (held_out.learned_tokens(index) == 0) continue;
    auto& [tokens, targets] = sequences.emplace_back(eval::Sequence{.tokens = empty, .targets = empty});
    held_out.copy(index, tokens, targets);
  }
  eval::fit_gates(model, sequences);
  checkpoint::write_calibration(checkpoint::ModelFolder::open(options.output, checkpoint::Check::never),
                                model.exits, {});
  spdlog::info("fitted the exits' gates on {} held-out tokens", learned);
}

}  // namespace

int run_tune(const std::vector<std::string>& args) {
  TuneArguments arguments;
  if (!arguments.parse(args)) return 0;
  spdlog::set_pattern("%H:%M:%S  %v");
  const int local_rank = comm::detect_launch().local_rank;
  const auto options =
      one_speaks(local_rank, [&] { return config::read_tune_config(arguments.config, arguments.sets); });
  if (!options) return base::kExitUserError;
  if (arguments.print_config) {
    if (local_rank == 0) fmt::print("{}\n", config::print_tune_config(*options));
    return 0;
  }
  if (arguments.spawn && !arguments.dry_run) return spawn_ranks(*arguments.spawn, args);
  const auto launch = find_launch(arguments, options->parallel);
  const auto prepared = one_speaks(local_rank, [&] { return prepare(*options, arguments, launch); });
  if (!prepared) return base::kExitUserError;
  if (arguments.simulate)
    fmt::print("{}", train::simulate_run(prepared->job, train::measure_times(prepared->job)));
  if (arguments.dry_run) return 0;
  const base::StopSignal stop;
  const int code = train::run_job(prepared->job, prepared->checkpoint, stop, launch);
  if (code == 0 && options->gate.train && launch.rank == 0) add_gates(prepared->job);
  return code;
}

int run_tune_reference(const std::vector<std::string>& args) {
  CommandLine line("ee-tune reference", "Prints every option of the configuration file as a Markdown table.");
  if (!line.parse(args)) return 0;
  fmt::print("{}", config::tune_reference_markdown());
  return 0;
}

}  // namespace ee::cli
