// One optimizer step on all exits (EE-Tuning section 3.2): backbone forward without autograd, exits'
// gradients one at a time as soon as their layer has run, then AdamW on the masters.
#pragma once

#include <cstdint>
#include <vector>

#include "ee/config/tune_options.h"
#include "ee/data/packing.h"
#include "ee/exits/exit_head.h"
#include "ee/model/backbone.h"
#include "ee/optim/adamw.h"
#include "ee/optim/schedules.h"

namespace ee::train {

struct StepResult {
  std::vector<double> losses;          // of each exit: mean over the step's tokens, before weights
  std::vector<double> gradient_norms;  // of each exit, before clipping
  double learning_rate = 0;
};

class Engine {
 public:
  // `exits`: f32 masters, ascending by layer, none deeper than the backbone's layers; they become trainable.
  // `steps`: of the whole run, for the schedules.
  Engine(model::Backbone backbone, std::vector<exits::ExitHead> exits, const config::TuneOptions& options,
         int64_t steps);

  // Step number `step` (from 0) on the global_batch samples of `source` that follow sample step *
  // global_batch. Memory: the largest of one layer's and one exit's activations for a micro-batch.
  StepResult step(const data::BatchSource& source, int64_t step);

  const model::Backbone& backbone() const { return backbone_; }
  std::vector<exits::ExitHead>& exits() { return exits_; }
  std::vector<optim::ParameterGroup>& groups() { return groups_; }  // one an exit, in the same order

 private:
  void accumulate(const data::Batch& batch, double scale, std::vector<double>& losses);

  model::Backbone backbone_;
  std::vector<exits::ExitHead> exits_;
  config::TuneOptions options_;
  std::vector<optim::ParameterGroup> groups_;
  optim::AdamW adamw_;
  optim::LearningRate learning_rate_;
  int64_t steps_;
};

}  // namespace ee::train
