#include "tune_command.h"

#include <spdlog/spdlog.h>

#include <cstdio>

#include "cli_options.h"
#include "ee/base/program.h"
#include "ee/config/tune_config.h"
#include "ee/train/cost.h"
#include "ee/train/trainer.h"

namespace ee::cli {

int run_tune(const std::vector<std::string>& args) {
  std::string config, resume = "none";
  std::vector<std::string> sets;
  std::optional<int64_t> threads;
  bool print_config = false, dry_run = false;
  CommandLine line(
      "ee-tune --config FILE [options]",
      "Tunes the exits of a model on its frozen backbone. `ee-tune reference` lists every option of "
      "the configuration file.");
  line.value("config", "FILE", config, "configuration, JSON with comments").required("config");
  line.values("set", "KEY=VALUE", sets, "replaces one option of the file: optimizer.lr=3e-4");
  line.value("resume", "auto|none|PATH", resume,
             "continue from the newest checkpoint, from none, or from this one");
  line.value("threads", "N", threads, "threads that compute; replaces the option `threads`");
  line.flag("print-config", print_config, "print every option with its value and stop");
  line.flag(
      "dry-run", dry_run,
      "check everything, print what the run would cost, and stop; tokenizes the text, reads no weights");
  if (!line.parse(args)) return 0;

  if (threads) sets.push_back(fmt::format("threads={}", *threads));
  const auto options = config::read_tune_config(config, sets);
  if (print_config) {
    fmt::print("{}\n", config::print_tune_config(options));
    return 0;
  }
  spdlog::set_pattern("%H:%M:%S  %v");
  const auto job = train::prepare_job(options);
  fmt::print("{}", train::describe(job, train::estimate_cost(job)));
  std::fflush(stdout);
  if (dry_run) return 0;
  const base::StopSignal stop;
  return train::run_job(job, resume, stop);
}

int run_tune_reference(const std::vector<std::string>& args) {
  CommandLine line("ee-tune reference", "Prints every option of the configuration file as a Markdown table.");
  if (!line.parse(args)) return 0;
  fmt::print("{}", config::tune_reference_markdown());
  return 0;
}

}  // namespace ee::cli
