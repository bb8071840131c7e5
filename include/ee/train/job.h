// A tuning run before any weight is read: options checked against the model, exits chosen, text tokenized.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ee/checkpoint/model_folder.h"
#include "ee/comm/launch.h"
#include "ee/config/exit_spec.h"
#include "ee/config/tune_options.h"
#include "ee/data/packing.h"
#include "ee/parallel/rank_grid.h"
#include "ee/train/stages.h"

namespace ee::train {

struct Job {
  config::TuneOptions options;  // with every path and thread count filled in
  checkpoint::ModelFolder folder;
  std::vector<config::ExitSpec> exits;         // to be trained, overrides applied, ascending by layer
  std::shared_ptr<const data::Corpus> corpus;  // of data.train
  data::BatchSource training;
  std::optional<data::BatchSource> validation;  // nothing held out: no evaluation
  int64_t steps = 0;
  std::string device;         // of this process
  parallel::GridSizes grid;   // how the run's processes share it
  std::vector<Stage> stages;  // one a pipeline stage

  // Of the run's exits, those of a stage.
  std::span<const config::ExitSpec> exits_of(const Stage& stage) const {
    return std::span(exits).subspan(stage.first_exit, stage.exit_count);
  }
  double element_bytes() const;     // of weights and activations as computed with
  int64_t depth() const;            // backbone layers that training runs
  int64_t tokens_per_step() const;  // predicted tokens
  // Layers to load: agreement with the final layer and a fit need all of them, training alone only depth().
  int64_t loaded_layers() const {
    return validation || options.exits.init == config::ExitStart::fit ? folder.config().layers : depth();
  }
  // What losses are of: the exits' layers, and "final" where the backbone is trained.
  std::vector<std::string> loss_names() const;
};

// Opens the model folder (headers only), picks and checks the exits, divides the work among the processes of
// `launch`, tokenizes the text or maps its cache (one process of a machine does it, the others wait), and
// counts the steps. Writes nothing but the token cache. UserError: the output exists already, or it,
// checkpoints or logs cannot be written, exits that are not there or have nothing to train, tokenizer and
// model do not fit, no text, text shorter than one sequence, text in which nothing is learned, text where the
// folder has no tokenizer, a sequence length beyond the model's positions, a grid that does not fit
// processes, model or batch.
Job prepare_job(config::TuneOptions options, const comm::LaunchInfo& launch = {});

// UserError: not one token of the first `samples` samples has a target; `what` names the text.
void check_learned(const data::BatchSource& source, int64_t samples, std::string_view what);

// The grid that `options` asks for, of `processes` processes. UserError: it needs another number of them.
parallel::GridSizes grid_sizes(const config::ParallelOptions& options, int64_t processes);

// The exits that `options` selects, with its overrides applied. `backbone`: it is trained, too, so an exit
// needs no parameters of its own.
std::vector<config::ExitSpec> select_exits(const config::ExitsConfig& available,
                                           const config::ExitsOptions& options,
                                           const config::ModelConfig& model, bool backbone = false);

}  // namespace ee::train
