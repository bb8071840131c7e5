// The frozen decoder: weights, one layer's forward pass, and the walk over layers that exits listen to.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "ee/config/model_config.h"
#include "ee/model/rope.h"
#include "ee/parallel/tensor_ranks.h"

namespace ee::model {

// y = x W^T + b. weight [out, in]; bias [out] or undefined. Under tensor parallelism these are this rank's
// rows (column-parallel in Megatron's words), or its columns: then `operator()` is a part of a sum, see
// leave().
struct Linear {
  at::Tensor weight, bias;
  at::Tensor operator()(const at::Tensor& x) const;
  // Out of a block, for a matrix that is split by columns: the parts' sum, then the bias.
  at::Tensor leave(const at::Tensor& x, const parallel::TensorRanks& ranks) const;
};

// Sizes here and below are those of one tensor rank: `heads`, `kv_heads`, `intermediate` and `vocab` are its
// share. parallel/tensor_slice.h says which.
struct AttentionWeights {
  Linear q;  // [heads * head_dim, hidden]
  Linear k;  // [kv_heads * head_dim, hidden]
  Linear v;  // [kv_heads * head_dim, hidden]
  Linear o;  // [hidden, heads * head_dim]
};

struct MlpWeights {
  Linear gate;  // [intermediate, hidden]
  Linear up;    // [intermediate, hidden]
  Linear down;  // [hidden, intermediate]
};

struct LayerWeights {
  at::Tensor input_norm;           // [hidden]
  at::Tensor post_attention_norm;  // [hidden]
  AttentionWeights attention;
  MlpWeights mlp;
};

// Keys and values of one layer for one batch of sequences, allocated once for `capacity` positions.
struct LayerCache {
  at::Tensor k;  // [batch, kv_heads, capacity, head_dim], after RoPE
  at::Tensor v;  // [batch, kv_heads, capacity, head_dim]
  int64_t length = 0;

  static LayerCache allocate(const config::ModelConfig& config, int64_t batch, int64_t capacity,
                             const at::TensorOptions& options, const parallel::TensorRanks& ranks = {});
  // Copies new_k and new_v [batch, kv_heads, seq, head_dim] behind what is there.
  void append(const at::Tensor& new_k, const at::Tensor& new_v);
};

// What one layer computes on the way; all [batch, seq, hidden] (the stream of parallel/tensor_ranks.h).
struct LayerTrace {
  at::Tensor post_attention;  // residual stream between attention and MLP
  at::Tensor mlp_input;       // post_attention after its norm
  at::Tensor output;          // residual stream behind the layer
};

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// silu(gate(x)) * up(x): what the down projection reads, [batch, seq, intermediate].
at::Tensor mlp_activations(const MlpWeights& weights, const at::Tensor& x,
                           const parallel::TensorRanks& ranks = {});
// SwiGLU: down(mlp_activations(x)).
at::Tensor mlp(const MlpWeights& weights, const at::Tensor& x, const parallel::TensorRanks& ranks = {});

// One decoder layer on x [batch, seq, hidden]. Without a cache the rows are positions 0..seq-1. With a cache
// they are positions cache->length .. +seq-1, attend to everything cached before them, and are appended to
// it.
LayerTrace decoder_layer(const config::ModelConfig& config, const LayerWeights& weights, const at::Tensor& x,
                         const Rope& rope, LayerCache* cache = nullptr,
                         const parallel::TensorRanks& ranks = {});

// A consecutive range of layers of a model, as far as one rank holds them. Immutable after loading; every
// tensor on one device in one dtype.
struct Backbone {
  config::ModelConfig config;        // of the whole model
  int64_t first_layer = 1;           // 1-based; more than 1 on the later stages of a pipeline
  at::Tensor embedding;              // [vocab, hidden]; undefined where nothing is embedded
  std::vector<LayerWeights> layers;  // layers first_layer..last_layer(); may be fewer than config.layers
  at::Tensor final_norm;             // [hidden]
  at::Tensor head;  // [vocab, hidden]; the embedding itself when tied; undefined where unused
  Rope rope;
  parallel::TensorRanks ranks;  // that share every matrix

  int64_t last_layer() const { return first_layer + static_cast<int64_t>(layers.size()) - 1; }
  const LayerWeights& layer(int64_t number) const {
    return layers.at(static_cast<size_t>(number - first_layer));
  }
  at::TensorOptions options() const { return final_norm.options(); }
  at::Device device() const { return final_norm.device(); }
  at::ScalarType dtype() const { return final_norm.scalar_type(); }
  at::Tensor embed(const at::Tensor& tokens) const;  // [batch, seq] i64 -> the stream, [batch, seq, hidden]
};

// Called once per depth, in order: depth 0 (only `output` defined: the embedding), then 1, 2, ...
using LayerListener = std::function<void(int64_t depth, const LayerTrace& trace)>;

// Runs layers 1..depth on tokens [batch, seq] without a KV cache and without autograd. Returns the residual
// stream behind the last one, [batch, seq, hidden]. What the listener keeps alive is the only memory beyond
// one layer's.
at::Tensor run_layers(const Backbone& backbone, const at::Tensor& tokens, int64_t depth,
                      const LayerListener& listener);

// The same from the stream in front of the backbone's first layer: its layers up to `depth`. The listener is
// called for their depths only.
at::Tensor continue_layers(const Backbone& backbone, at::Tensor stream, int64_t depth,
                           const LayerListener& listener);

}  // namespace ee::model
