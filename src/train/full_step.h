// Gradients of all parameters of one pipeline stage (EE-LLM, arXiv 2312.04916): the weighted sum of the
// exits' losses and the final layer's goes back through the layers.
//
// Autograd never sees more than one layer or one exit: each layer is run again in the backward pass from its
// input, which is all that is kept (or, without `recompute`, its own piece of graph is kept). What an exit
// gives back joins the gradient of the stream where the exit listens.
//
// Stages: all micro-batches of a step go forward, then all backward. A stage receives the gradient g of the
// stream that it has handed on and goes on with the gradient of its exits' losses + <g, stream> (the
// auxiliary loss of section 3.1). Tensors that several stages use (tied or shared head, final norm) have
// their gradients added up over them.
#pragma once

#include <functional>
#include <vector>

#include "backbone_groups.h"
#include "ee/data/packing.h"
#include "ee/exits/exit_head.h"
#include "ee/optim/optimizer.h"
#include "ee/parallel/stage_link.h"
#include "turns.h"

namespace ee::train {

// What the engine lends for a step. Groups of the optimizer: the stage's exits, then its backbone_groups().
struct FullView {
  const Stage& stage;
  std::vector<exits::ExitHead>& exits;
  optim::Optimizer& optimizer;
  parallel::StageLink* link;  // null: the only stage
  const parallel::Ranks* ranks;
};

class FullStep {
 public:
  // `masters`: f32; the optimizer will make their tensors views of its buffers.
  FullStep(const Stage& stage, model::Backbone masters, at::ScalarType dtype,
           const config::TuneOptions& options);

  // The masters in `dtype`: themselves when it is f32, else a copy that refresh() brings up to date.
  const model::Backbone& computed() const { return computed_; }
  void refresh();

  std::vector<BackboneGroup>& groups() { return groups_; }
  const Turns& turns() const { return turns_; }
  bool is_active(int64_t unit) const { return active_.contains(unit); }

  // Before a step: gradients for the groups whose turn it is, and only for them.
  void begin(const FullView& view, int64_t step);

  // Adds the gradients of `count` micro-batches and starts their reduction. `scale`: of the exits' weights;
  // every loss is divided by `tokens`, those with a target in the global batch. losses: sums over tokens, of
  // the exits, then of the final layer.
  void accumulate(const FullView& view, int64_t count, const std::function<data::Batch(int64_t)>& batch,
                  double scale, int64_t tokens, std::vector<double>& losses);

 private:
  struct LayerRun {
    at::Tensor input;         // in front of the layer
    model::LayerTrace trace;  // with its graph; undefined until then
  };
  struct MicroBatch {
    at::Tensor tokens, targets;    // [batch, seq] i64
    std::vector<LayerRun> layers;  // from lowest() on
    at::Tensor stream;             // behind the last layer
    bool last = false;             // of the step
  };
  struct Weights {  // of the losses
    double exits = 0, final = 0;
  };

  MicroBatch forward(const FullView& view, const data::Batch& batch, bool last, std::vector<double>& losses);
  void backward(const FullView& view, MicroBatch batch, std::vector<double>& losses);
  at::Tensor final_gradient(const FullView& view, const MicroBatch& batch, std::vector<double>& losses);
  LayerRun record(int64_t layer, int64_t lowest, const at::Tensor& input) const;
  at::Tensor through(const FullView& view, int64_t layer, LayerRun run, const MicroBatch& batch,
                     at::Tensor gradient, std::vector<double>& losses);
  exits::ExitInput visit(const FullView& view, size_t exit, const model::LayerTrace& trace,
                         const MicroBatch& batch, bool gradient, std::vector<double>& losses);
  void into_embedding(const at::Tensor& tokens, const at::Tensor& stream_gradient);
  void sum_over_stages(const FullView& view, const BackboneGroup& group, const at::Tensor& gradient) const;
  void done(const FullView& view, size_t group) const;  // its gradient, for this step
  bool is_layer(const BackboneGroup& group) const;
  size_t layer_group(int64_t layer) const;  // index into groups_
  static model::LayerTrace output_only(const at::Tensor& stream) {
    model::LayerTrace trace;
    trace.output = stream;
    return trace;
  }

  // The lowest unit that a gradient is for: that of the layer's weights, or for a later stage and the
  // embedding that of the stream at this depth. Layers from here on are recorded, those above give their
  // inputs one.
  int64_t lowest(const Stage& stage) const;

  config::TuneOptions options_;
  model::Backbone masters_, computed_;
  std::vector<BackboneGroup> groups_;
  exits::ExitHead final_;
  Turns turns_;
  UnitRange active_;
  Weights weights_;
};

}  // namespace ee::train
