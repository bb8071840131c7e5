#include "ee/model/tensor_table.h"

#include <fmt/format.h>

namespace ee::model {
namespace {

using parallel::Split;

void visit_linear(const std::string& name, Linear& linear, int64_t out, int64_t in, bool bias, Split split,
                  const TensorVisitor& visit) {
  const bool by_columns = split == Split::columns || split == Split::head_columns;
  visit(name + ".weight", {{out, in}, split}, linear.weight);
  if (bias) {
    visit(name + ".bias", {{out}, by_columns ? Split::none : split}, linear.bias);
  }
}

void visit_attention(const config::ModelConfig& c, const std::string& prefix, AttentionWeights& weights,
                     const TensorVisitor& visit) {
  const int64_t q_rows = c.heads * c.head_dim;
  const int64_t kv_rows = c.kv_heads * c.head_dim;
  visit_linear(prefix + "q_proj", weights.q, q_rows, c.hidden_size, c.qkv_bias, Split::head_rows, visit);
  visit_linear(prefix + "k_proj", weights.k, kv_rows, c.hidden_size, c.qkv_bias, Split::kv_heads, visit);
  visit_linear(prefix + "v_proj", weights.v, kv_rows, c.hidden_size, c.qkv_bias, Split::kv_heads, visit);
  visit_linear(prefix + "o_proj", weights.o, c.hidden_size, q_rows, c.output_bias, Split::head_columns,
               visit);
}

// In the order of the forward pass, with the 1-based layer of each tensor (0: none).
using LayerTensorVisitor =
    std::function<void(const std::string& name, const TensorShape& shape, at::Tensor& member, int64_t layer)>;

void visit_with_layer(Backbone& backbone, const BackboneEnds& ends, const LayerTensorVisitor& visit) {
  const config::ModelConfig& c = backbone.config;
  if (ends.embedding || (ends.head && c.tie_embeddings)) {
    visit("model.embed_tokens.weight", {{c.vocab_size, c.hidden_size}, Split::vocabulary}, backbone.embedding,
          0);
  }
  for (size_t i = 0; i < backbone.layers.size(); ++i) {
    const int64_t layer = backbone.first_layer + static_cast<int64_t>(i);
    visit_layer(c, fmt::format("model.layers.{}.", layer - 1), backbone.layers[i],
                [&](const std::string& name, const TensorShape& shape, at::Tensor& member) {
                  visit(name, shape, member, layer);
                });
  }
  visit("model.norm.weight", {{c.hidden_size}}, backbone.final_norm, 0);
  if (ends.head && !c.tie_embeddings) {
    visit("lm_head.weight", {{c.vocab_size, c.hidden_size}, Split::vocabulary}, backbone.head, 0);
  }
}

TensorVisitor cast_to(at::ScalarType dtype) {
  return [dtype](const std::string&, const TensorShape&, at::Tensor& member) { member = member.to(dtype); };
}

}  // namespace

void visit_mlp(const config::ModelConfig& c, const std::string& prefix, MlpWeights& weights,
               const TensorVisitor& visit) {
  visit_linear(prefix + "gate_proj", weights.gate, c.intermediate_size, c.hidden_size, c.mlp_bias,
               Split::rows, visit);
  visit_linear(prefix + "up_proj", weights.up, c.intermediate_size, c.hidden_size, c.mlp_bias, Split::rows,
               visit);
  visit_linear(prefix + "down_proj", weights.down, c.hidden_size, c.intermediate_size, c.mlp_bias,
               Split::columns, visit);
}

void visit_layer(const config::ModelConfig& c, const std::string& prefix, LayerWeights& weights,
                 const TensorVisitor& visit) {
  visit(prefix + "input_layernorm.weight", {{c.hidden_size}}, weights.input_norm);
  visit_attention(c, prefix + "self_attn.", weights.attention, visit);
  visit(prefix + "post_attention_layernorm.weight", {{c.hidden_size}}, weights.post_attention_norm);
  visit_mlp(c, prefix + "mlp.", weights.mlp, visit);
}

LayerWeights in_dtype(const config::ModelConfig& config, LayerWeights weights, at::ScalarType dtype) {
  visit_layer(config, "", weights, cast_to(dtype));
  return weights;
}

MlpWeights in_dtype(const config::ModelConfig& config, MlpWeights weights, at::ScalarType dtype) {
  visit_mlp(config, "", weights, cast_to(dtype));
  return weights;
}

void visit_backbone(Backbone& backbone, const TensorVisitor& visit, const BackboneEnds& ends) {
  visit_with_layer(backbone, ends,
                   [&](const std::string& name, const TensorShape& shape, at::Tensor& member, int64_t) {
                     visit(name, shape, member);
                   });
}

std::vector<TensorEntry> tensor_table(const config::ModelConfig& config) {
  Backbone empty;
  empty.config = config;
  empty.layers.resize(static_cast<size_t>(config.layers));
  std::vector<TensorEntry> table;
  visit_with_layer(empty, {},
                   [&](const std::string& name, const TensorShape& shape, at::Tensor&, int64_t layer) {
                     table.push_back({name, shape.sizes, layer});
                   });
  return table;
}

}  // namespace ee::model
