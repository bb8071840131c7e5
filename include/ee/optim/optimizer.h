// AdamW on float32 master weights, group by group (an exit; a layer of the backbone): the sum of gradients
// over data-parallel ranks, clipping, update.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ee/comm/group.h"
#include "ee/config/tune_options.h"
#include "ee/optim/flat_layout.h"

namespace ee::optim {

// One trained tensor, or what a tensor-parallel rank holds of it.
struct Parameter {
  std::string name;          // its name in exits.safetensors
  at::Tensor master;         // f32
  at::Tensor gradient = {};  // f32, as master; the optimizer makes it
  bool decay = false;        // takes part in weight decay
  // Tensor-parallel ranks that hold the same elements, with the same gradient: their norm counts once.
  int64_t tensor_copies = 1;
  // Ranks that hold the same elements, each with a part of the gradient: it is summed over them first.
  std::optional<comm::Group> partial_over = {};

  // Matrices decay; norm weights and biases do not.
  static Parameter make(std::string name, at::Tensor master);
};

// The parameters of one exit or of one layer: what `clip: per_exit` clips together.
struct ParameterGroup {
  int64_t layer = 0;
  std::vector<Parameter> parameters;
  std::string name = {};  // for messages; empty: "exit at layer <layer>"
  // Pipeline stages that hold the same group with the same gradient: its norm counts once.
  int64_t stages = 1;
  bool active = true;  // see Optimizer::activate()

  std::string title() const;
};

struct Moments {
  at::Tensor first, second;  // f32, as the master
};

// With whom an optimizer works. An absent group means one rank.
struct ReduceRanks {
  std::optional<comm::Group> data = {};      // the same parameters, other samples: gradients are summed
  std::optional<comm::Group> tensor = {};    // other parts of the same exits: their norms are put together
  std::optional<comm::Group> pipeline = {};  // other exits: only `clip: global` asks them
  at::Device device = at::kCPU;              // of their world
};

// Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), bias-corrected:
//   w -= lr * (weight_decay * w + m_hat / (sqrt(v_hat) + eps)).
// Elementwise in a fixed order: the same numbers on every run and for any number of threads. All
// data-parallel ranks have the same bits after each step, whether they share the state or not.
class Optimizer {
 public:
  // What one message between data-parallel ranks holds, as in DDP and EE-Tuning.
  static constexpr int64_t kBucketBytes = 25 << 20;

  // The masters and the gradients of each group move into one buffer each; the tensors that `groups` refer to
  // (the exits' members) become views of it, require gradients, and have the gradient buffer as .grad. On all
  // data-parallel ranks masters are the same. shard_state: each of them has only its share of the moments and
  // updates only that (ZeRO-1, Rajbhandari et al. 2020).
  Optimizer(const config::OptimizerOptions& options, std::vector<ParameterGroup> groups,
            ReduceRanks ranks = {}, bool shard_state = false, int64_t bucket_bytes = kBucketBytes);
  Optimizer(Optimizer&&) = default;  // no copies: they would share their buffers

  // Between two steps: whether a group takes part in the next ones. One that does not has no gradient buffer,
  // its tensors require no gradients, and its moments lie on the CPU.
  void activate(size_t index, bool active);

  // To be called when the last micro-batch of a step has added to the gradients of group `index`, for each
  // active group once a step, in the same order on all ranks. Starts their sum over the data-parallel ranks
  // and returns; what is computed next overlaps with it. Waits for the sum of the group before: the messages
  // of only one group take up memory.
  void reduce(size_t index);

  // Waits for the sums, clips, updates the masters in place and sets the gradients to zero. `step` counts
  // from 0 and is all the optimizer remembers besides the moments. Returns the norm of each group before
  // clipping, the same on all data- and tensor-parallel ranks. Waits for other pipeline stages only with
  // `clip: global`. UserError, on all ranks whose norms are put together, when one is not finite: nothing has
  // been changed. Groups that are not active stay as they are, with norm 0. `updates`: how often the active
  // ones have been updated before, where that is not `step`.
  std::vector<double> step(double learning_rate, int64_t step, std::optional<int64_t> updates = {});

  const std::vector<ParameterGroup>& groups() const { return groups_; }

  // For checkpoints: the whole moments of a group by the names of its parameters. With shard_state they are
  // gathered from the data-parallel ranks, who must all call it; else they alias the state.
  std::map<std::string, Moments> moments(size_t index) const;
  // Each rank keeps its share.
  void set_moments(size_t index, const std::string& name, const Moments& moments);

 private:
  struct Piece {
    Part part;
    Range state;  // where its moments are
  };
  struct Flat {  // the buffers of one group, f32
    FlatLayout layout;
    at::Tensor master = {}, gradient = {};             // [layout.size()]; no gradient: not active
    at::Tensor first_moment = {}, second_moment = {};  // [elements that this rank updates]
    std::vector<Piece> updated = {};                   // by this rank
    bool reduced = false;                              // in this step
  };

  Flat flatten(ParameterGroup& group, int64_t bucket_bytes) const;
  void give_gradients(size_t index);
  void take_gradients(size_t index);
  int64_t data_ranks() const { return ranks_.data ? ranks_.data->size() : 1; }
  Range share(const Flat& flat, Range bucket) const;
  std::vector<double> norms() const;
  double global_norm(const std::vector<double>& norms) const;
  void check_finite(const std::vector<double>& norms, double global, int64_t step) const;
  void update(size_t index, double learning_rate, int64_t step, double factor);
  std::vector<comm::Work> gather_shares(const Flat& flat, const at::Tensor& buffer) const;
  at::Tensor whole(const Flat& flat, const at::Tensor& state) const;

  config::OptimizerOptions options_;
  std::vector<ParameterGroup> groups_;
  ReduceRanks ranks_;
  bool shard_state_;
  std::vector<Flat> flats_;        // one a group
  std::vector<comm::Work> works_;  // sums under way
};

}  // namespace ee::optim
