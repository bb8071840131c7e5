// The pipeline stages of a run: which layers and exits each one has. Pure arithmetic on shapes.
#pragma once

#include <cstdint>
#include <vector>

#include "ee/config/exit_spec.h"
#include "ee/config/model_config.h"
#include "ee/config/tune_options.h"

namespace ee::train {

struct Stage {
  int64_t first_layer = 1;    // 1-based
  int64_t last_layer = 0;     // of those that training runs: the last stage's deepest exit listens there
  int64_t loaded_layers = 0;  // up to this layer; more than last_layer where evaluation goes on to the end
  bool is_first = true, is_last = true;
  int64_t index = 0, count = 1;  // of the pipeline's stages
  size_t first_exit = 0;  // of the run's exits, which ascend by layer; also how many earlier stages have
  size_t exit_count = 0;
  double share = 1.0;  // of the work of a micro-batch

  // Whether its exits, or the final layer, need the output embedding that the backbone shares.
  bool needs_head = true;
  std::vector<int64_t> head_stages = {0};  // all stages that do
};

// Multiply-adds count as two. Matrices only: norms and biases are lost in the rounding.
struct Flops {
  const config::ModelConfig& model;
  double sequence_length;

  double mlp() const { return 2.0 * 3.0 * static_cast<double>(model.hidden_size * model.intermediate_size); }
  double attention() const;
  double layer() const { return attention() + mlp(); }
  double head() const { return 2.0 * static_cast<double>(model.hidden_size * model.vocab_size); }
  // Forward and backward of one exit. Nothing flows into its input, and the loss's filtered backward pass is
  // a sparse gather that does not count.
  double exit(const config::ExitSpec& spec, double gradient_filter) const;
  // The final layer's distribution, once for all exits that learn from it.
  double teacher(const config::LossOptions& loss) const { return loss.kl > 0 ? head() : 0; }
  // One decoder layer in a run: forward only, or with mode all both ways.
  double trained_layer(const config::TrainOptions& train) const {
    return layer() * (!train.backbone() ? 1 : train.recompute ? 4 : 3);
  }
};

// The final layer's output as an exit, which it is to a run that trains the backbone.
config::ExitSpec final_exit(const config::ModelConfig& model, const config::TrainOptions& train);

// How many of the model's layers a run goes through: up to the deepest exit, or all of them if they are
// trained or the exits learn from the last one.
int64_t run_depth(const config::ModelConfig& model, const std::vector<config::ExitSpec>& exits,
                  const config::TuneOptions& options);

// Divides the layers up to the deepest of `exits` (all of them with mode all) into options.parallel.pipeline
// stages of about equal cost; what lies behind, up to `loaded_layers`, is the last one's. UserError: more
// stages than layers.
std::vector<Stage> plan_run(const config::ModelConfig& model, const std::vector<config::ExitSpec>& exits,
                            const config::TuneOptions& options, int64_t loaded_layers);

}  // namespace ee::train
