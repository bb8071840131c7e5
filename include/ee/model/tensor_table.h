// Every tensor of a model: Hugging Face name, shape. One table serves loading, verifying, counting and
// exporting.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ee/model/backbone.h"
#include "ee/parallel/tensor_slice.h"

namespace ee::model {

// Sizes of the whole tensor, and how tensor-parallel ranks divide it. Serves wherever sizes alone are wanted.
struct TensorShape {
  std::vector<int64_t> sizes;
  parallel::Split split = parallel::Split::none;

  operator const std::vector<int64_t>&() const { return sizes; }
};

struct TensorEntry {
  std::string name;  // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;
  int64_t layer = 0;  // 1-based, or 0 for embedding, final norm and head
};

// In the order of the forward pass. A tied head has no entry of its own.
std::vector<TensorEntry> tensor_table(const config::ModelConfig& config);

// The tensors of one decoder layer below `prefix` ("model.layers.3." or "exits.10.layer."), each with the
// member that holds it; `visit` fills or reads it.
using TensorVisitor =
    std::function<void(const std::string& name, const TensorShape& shape, at::Tensor& member)>;
void visit_layer(const config::ModelConfig& config, const std::string& prefix, LayerWeights& weights,
                 const TensorVisitor& visit);
void visit_mlp(const config::ModelConfig& config, const std::string& prefix, MlpWeights& weights,
               const TensorVisitor& visit);

// The same weights in `dtype`: a branch's masters are f32 while activations may be bf16. The cast is recorded
// by autograd, so gradients arrive at the masters in f32.
LayerWeights in_dtype(const config::ModelConfig& config, LayerWeights weights, at::ScalarType dtype);
MlpWeights in_dtype(const config::ModelConfig& config, MlpWeights weights, at::ScalarType dtype);

// Which ends of the model a rank needs. A tied head is the embedding: either need brings it.
struct BackboneEnds {
  bool embedding = true, head = true;
};

// The backbone's ends and its layers first_layer..last_layer(); backbone.config and the layers must be set.
void visit_backbone(Backbone& backbone, const TensorVisitor& visit, const BackboneEnds& ends = {});

}  // namespace ee::model
