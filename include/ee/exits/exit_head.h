// One early exit: from a layer's trace to the hidden state that its output embedding reads.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "ee/config/exit_spec.h"
#include "ee/model/backbone.h"
#include "ee/model/tensor_table.h"

namespace ee::exits {

// What an exit reads from the backbone; [batch, seq, hidden] each.
struct ExitInput {
  at::Tensor hidden;     // embedding, norm, layer: the residual stream. mlp: the post-attention stream
  at::Tensor mlp_input;  // mlp: the post-attention norm output; undefined for the others
};

// Picks the input of an exit from the trace of the layer at depth spec.depth().
ExitInput exit_input(const config::ExitSpec& spec, const model::LayerTrace& trace);

// An affine map of the residual stream; every tensor-parallel rank has all of it.
struct Translator {
  model::Linear full;  // [hidden, hidden], bias [hidden]
  at::Tensor scale;    // low_rank: [hidden], and the two below
  model::Linear down;  // [rank, hidden]
  model::Linear up;    // [hidden, rank], bias [hidden]
};

// Plain tensors, no autograd state of its own: the trainer makes them require gradients.
struct ExitHead {
  config::ExitSpec spec;
  Translator translator;
  model::MlpWeights mlp;      // kind mlp
  model::LayerWeights layer;  // kind layer
  at::Tensor norm;            // [hidden]; the backbone's when spec.norm is shared; undefined when none
  at::Tensor head;            // [vocab, hidden]; the backbone's when spec.head is shared
  at::Tensor gate;  // [2, hidden + 3] f32 (exit_gate.h); undefined when none was fitted. Not part of
                    // visit_exit(): it is fitted after the exit, not trained with it

  // The hidden state in front of the output embedding, [batch, seq, hidden]. cache: only for kind layer at
  // inference.
  at::Tensor forward(const model::Backbone& backbone, const ExitInput& input,
                     model::LayerCache* cache = nullptr) const;

  // What the translator reads: the residual stream of the input, behind its layer for kind layer.
  at::Tensor stream(const model::Backbone& backbone, const ExitInput& input,
                    model::LayerCache* cache = nullptr) const;
  // forward() without the norm.
  at::Tensor unnormalized(const model::Backbone& backbone, const ExitInput& input,
                          model::LayerCache* cache = nullptr) const;

  // [.., vocab] logits of forward()'s result divided by the temperature; for a few rows only.
  at::Tensor logits(const model::Backbone& backbone, const at::Tensor& exit_hidden) const;
};

// The exit's own tensors with their file names "exits.<layer>.mlp.gate_proj.weight",
// "exits.<layer>.norm.weight", "exits.<layer>.head.weight", "exits.<layer>.layer.self_attn.q_proj.weight",
// ...; shared ones are left out.
void visit_exit(const config::ModelConfig& config, ExitHead& exit, const model::TensorVisitor& visit);

// Number of the exit's own parameters.
int64_t parameter_count(const config::ModelConfig& config, const config::ExitSpec& spec);

// Fills norm and head that are shared with the backbone.
void bind_shared(ExitHead& exit, const model::Backbone& backbone);

}  // namespace ee::exits
