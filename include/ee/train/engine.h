// One optimizer step of one pipeline stage. On a frozen backbone (EE-Tuning section 3.2): backbone forward
// without autograd, exits' gradients one at a time as soon as their layer has run, then AdamW on the masters.
// With train.mode all the backbone is trained, too (EE-LLM): src/train/full_step.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "ee/config/tune_options.h"
#include "ee/data/packing.h"
#include "ee/exits/exit_head.h"
#include "ee/exits/exit_loss.h"
#include "ee/model/backbone.h"
#include "ee/optim/optimizer.h"
#include "ee/optim/schedules.h"
#include "ee/parallel/stage_link.h"
#include "ee/train/stages.h"

namespace ee::train {

class ExitInputs;
class FullStep;

struct StepResult {  // with mode all one entry more: the final layer's loss, the norm of the backbone's
                     // gradient
  std::vector<double> losses;          // of each exit: mean over the step's learned tokens, before weights
  std::vector<double> gradient_norms;  // of each exit, before clipping
  double learning_rate = 0;
  int64_t learned_tokens = 0;  // in the global batch: those with a target; 0: the step changed nothing
  int64_t empty_steps = 0;     // up to this one that changed nothing
};

class Engine {
 public:
  // `backbone`: the layers of `stage`. `exits`: its exits, f32 masters (this tensor rank's slices), ascending
  // by layer; they become trainable. `steps`: of the whole run, for the schedules. `ranks` (outlives the
  // engine; null: a single process) all have an engine. With mode all the backbone is f32, too: its tensors
  // become masters, and `dtype` is what is computed in.
  Engine(Stage stage, model::Backbone backbone, std::vector<exits::ExitHead> exits,
         const config::TuneOptions& options, int64_t steps, const parallel::Ranks* ranks = nullptr,
         at::ScalarType dtype = at::kFloat);
  // Of all layers and all exits.
  Engine(model::Backbone backbone, std::vector<exits::ExitHead> exits, const config::TuneOptions& options,
         int64_t steps);
  ~Engine();
  Engine(Engine&&) noexcept;

  // Step number `step` (from 0) on the global_batch samples of `source` that follow sample step *
  // global_batch; data-parallel ranks take every so-many-th micro-batch. A loss is a sum over the tokens of
  // the whole batch that have a target, divided once by their number, however the batch is cut. Where none
  // has one, weights and moments stay as they are. Results are of this stage's exits over the whole batch.
  // Returns while later stages may still be at work on the step, except with schedule flush. Memory: the
  // largest of one layer's and one exit's activations for a micro-batch; in front of another stage also the
  // inputs of this stage's exits.
  StepResult step(const data::BatchSource& source, int64_t step);

  const Stage& stage() const { return stage_; }
  const model::Backbone& backbone() const { return backbone_; }
  std::vector<exits::ExitHead>& exits() { return exits_; }
  // One group an exit, in the same order; with mode all then one a layer and end of the model
  // (backbone_groups.h).
  optim::Optimizer& optimizer() { return optimizer_; }
  const optim::Optimizer& optimizer() const { return optimizer_; }
  // To be called when masters have been written to from outside.
  void masters_changed();
  const parallel::Ranks* ranks() const { return ranks_; }
  parallel::StageLink* link() { return link_.get(); }  // null in a single process
  // From now on steps take the exits' inputs from there (src/train/exit_inputs.h); not with mode all.
  void use(std::unique_ptr<const ExitInputs> stored);
  const ExitInputs* exit_inputs() const { return exit_inputs_.get(); }

 private:
  int64_t data_rank() const { return ranks_ ? ranks_->data.rank() : 0; }
  int64_t data_ranks() const { return ranks_ ? ranks_->data.size() : 1; }
  // Of a batch with something to learn.
  void update(const data::BatchSource& source, int64_t step, StepResult& result);
  // Looks at the batches up to `step` that it has not looked at yet.
  void find_empty_steps(const data::BatchSource& source, int64_t step);
  // How often the groups of this step have been updated before: what Adam corrects its bias by.
  int64_t updates_before(int64_t step) const;
  void accumulate(const data::BatchSource& source, int64_t step, int64_t tokens, std::vector<double>& losses);
  // `last`: of the step, so that each exit's gradient is complete when its backward pass is.
  void accumulate(const data::Batch& batch, double scale, bool last, std::vector<double>& losses);
  void accumulate_taught(int64_t count, const std::function<data::Batch(int64_t)>& batch, double scale,
                         std::vector<double>& losses);
  exits::ExitLossOptions loss_options(size_t exit, double scale) const;

  Stage stage_;
  model::Backbone backbone_;
  std::vector<exits::ExitHead> exits_;
  config::TuneOptions options_;
  const parallel::Ranks* ranks_;
  std::unique_ptr<parallel::StageLink> link_;
  std::unique_ptr<FullStep> full_;                 // null: the backbone is frozen
  std::unique_ptr<const ExitInputs> exit_inputs_;  // null: the backbone runs
  optim::Optimizer optimizer_;
  optim::LearningRate learning_rate_;
  int64_t steps_;
  int64_t looked_at_ = 0;             // steps from 0 on of which it is known whether they are empty
  std::vector<int64_t> empty_steps_;  // of these, ascending: without a token to learn
};

}  // namespace ee::train
