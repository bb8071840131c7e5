#include <ATen/ops/index_put.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tril.h>

#include <algorithm>

#include "ee/model/backbone.h"
#include "ee/model/decode_step.h"
#include "pointwise.h"

namespace ee::model {
namespace {

// Row i of `seq` new rows is position past + i and sees keys 0..past+i. [seq, past + seq] bool.
at::Tensor visible_keys(int64_t seq, int64_t past, at::Device device) {
  return at::ones({seq, past + seq}, at::TensorOptions(at::kBool).device(device)).tril(past);
}

// Attention of all rows to themselves and those before: q [batch, heads, seq, head_dim], k and v
// [batch, kv_heads, seq, head_dim] -> [batch, heads, seq, head_dim].
at::Tensor attend_from_start(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const bool grouped = q.size(1) != k.size(1);
  return at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/{}, /*dropout_p=*/0.0, /*is_causal=*/true,
                                          /*scale=*/{}, grouped);
}

// Attention to a cache. Query heads that share a key head become rows of it, so the cache is never expanded.
// q [batch, heads, seq, head_dim], k and v [batch, kv_heads, past + seq, head_dim].
at::Tensor attend_to_cache(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t batch = q.size(0), heads = q.size(1), seq = q.size(2), head_dim = q.size(3);
  const int64_t kv_heads = k.size(1), group = heads / kv_heads;
  std::optional<at::Tensor> mask;
  if (seq > 1) {
    mask = visible_keys(seq, k.size(2) - seq, q.device()).repeat({group, 1});  // [group * seq, past + seq]
  }
  const at::Tensor rows = q.reshape({batch, kv_heads, group * seq, head_dim});
  return at::scaled_dot_product_attention(rows, k, v, mask).reshape({batch, heads, seq, head_dim});
}

// Attention of one new row a sequence, which is written into the cache first. q, k, v: [batch, 1, heads or
// kv_heads, head_dim] before RoPE -> [batch, heads, 1, head_dim].
at::Tensor attend_step(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const StepRows& rows,
                       LayerCache& cache) {
  const int64_t batch = q.size(0), heads = q.size(2), kv_heads = k.size(2), head_dim = q.size(3);
  // For RoPE the batch is one sequence of rows, each with its own position.
  const auto rotated = [&](const at::Tensor& t) { return rotate(t.transpose(0, 1), rows.rope); };
  const c10::List<std::optional<at::Tensor>> place({rows.sequence, rows.positions});
  cache.k.transpose(1, 2).index_put_(place, rotated(k).squeeze(0));
  cache.v.transpose(1, 2).index_put_(place, v.squeeze(1));
  // As in attend_to_cache(), query heads that share a key head are rows of it.
  const at::Tensor queries = rotated(q).view({batch, kv_heads, heads / kv_heads, head_dim});
  return at::scaled_dot_product_attention(queries, cache.k.narrow(2, 0, rows.longest),
                                          cache.v.narrow(2, 0, rows.longest), rows.visible)
      .reshape({batch, heads, 1, head_dim});
}

// x [batch, seq, hidden] -> [batch, seq, hidden]. Inside, all tokens and this rank's heads: `mix` makes
// [batch, heads, seq, head_dim] of q, k and v [batch, seq, heads or kv_heads, head_dim] before RoPE.
template <typename Mix>
at::Tensor attention(const config::ModelConfig& config, const AttentionWeights& weights,
                     const at::Tensor& stream, const parallel::TensorRanks& ranks, const Mix& mix) {
  const at::Tensor x = ranks.enter(stream);
  const int64_t batch = x.size(0), seq = x.size(1);
  const auto heads_of = [&](const at::Tensor& t) { return t.view({batch, seq, -1, config.head_dim}); };
  const at::Tensor mixed = mix(heads_of(weights.q(x)), heads_of(weights.k(x)), heads_of(weights.v(x)));
  return weights.o.leave(mixed.transpose(1, 2).reshape({batch, seq, -1}), ranks);
}

template <typename Mix>
LayerTrace layer_around(const config::ModelConfig& config, const LayerWeights& weights, const at::Tensor& x,
                        const parallel::TensorRanks& ranks, const Mix& mix) {
  LayerTrace trace;
  const at::Tensor normed = rms_norm(x, weights.input_norm, config.rms_norm_eps);
  trace.post_attention = add_residual(attention(config, weights.attention, normed, ranks, mix), x);
  trace.mlp_input = rms_norm(trace.post_attention, weights.post_attention_norm, config.rms_norm_eps);
  trace.output = add_residual(mlp(weights.mlp, trace.mlp_input, ranks), trace.post_attention);
  return trace;
}

// Consecutive positions of each sequence, all sequences equally long: behind what `cache` holds, if there is
// one. q, k, v and result as attend_step().
at::Tensor attend_block(at::Tensor q, at::Tensor k, const at::Tensor& v, const Rope& rope,
                        LayerCache* cache) {
  const int64_t seq = q.size(1), past = cache ? cache->length : 0;
  const RopeRows angles = rope.rows(past, seq);
  const at::Tensor queries = rotate(std::move(q), angles).transpose(1, 2);
  at::Tensor keys = rotate(std::move(k), angles).transpose(1, 2);
  at::Tensor values = v.transpose(1, 2);
  if (cache) {
    cache->append(keys, values);
    keys = cache->k.narrow(2, 0, cache->length);
    values = cache->v.narrow(2, 0, cache->length);
  }
  return past == 0 ? attend_from_start(queries, keys, values) : attend_to_cache(queries, keys, values);
}

}  // namespace

at::Tensor Linear::operator()(const at::Tensor& x) const {
  return at::linear(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

at::Tensor Linear::leave(const at::Tensor& x, const parallel::TensorRanks& ranks) const {
  if (ranks.size() == 1) return (*this)(x);
  const at::Tensor sum = ranks.leave(at::linear(x, weight));
  return bias.defined() ? sum.add(bias) : sum;
}

LayerCache LayerCache::allocate(const config::ModelConfig& config, int64_t batch, int64_t capacity,
                                const at::TensorOptions& options, const parallel::TensorRanks& ranks) {
  const int64_t kv_heads = parallel::local_kv_heads(config, ranks.rank(), ranks.size());
  const std::vector<int64_t> shape = {batch, kv_heads, capacity, config.head_dim};
  return {.k = at::empty(shape, options), .v = at::empty(shape, options)};
}

void LayerCache::append(const at::Tensor& new_k, const at::Tensor& new_v) {
  const int64_t seq = new_k.size(2);
  EE_CHECK(length + seq <= k.size(2), "KV cache of {} positions holds {}, {} more do not fit", k.size(2),
           length, seq);
  k.narrow(2, length, seq).copy_(new_k);
  v.narrow(2, length, seq).copy_(new_v);
  length += seq;
}

at::Tensor mlp_activations(const MlpWeights& weights, const at::Tensor& stream,
                           const parallel::TensorRanks& ranks) {
  const at::Tensor x = ranks.enter(stream);
  return silu_times(weights.gate(x), weights.up(x));
}

at::Tensor mlp(const MlpWeights& weights, const at::Tensor& stream, const parallel::TensorRanks& ranks) {
  return weights.down.leave(mlp_activations(weights, stream, ranks), ranks);
}

LayerTrace decoder_layer(const config::ModelConfig& config, const LayerWeights& weights, const at::Tensor& x,
                         const Rope& rope, LayerCache* cache, const parallel::TensorRanks& ranks) {
  return layer_around(config, weights, x, ranks, [&](at::Tensor q, at::Tensor k, const at::Tensor& v) {
    return attend_block(std::move(q), std::move(k), v, rope, cache);
  });
}

StepRows::StepRows(const Rope& angles, std::span<const int64_t> lengths)
    : longest(*std::ranges::max_element(lengths) + 1) {
  const auto batch = static_cast<int64_t>(lengths.size());
  const RopeRows all = angles.rows(0, longest);
  positions =
      at::tensor(at::ArrayRef<int64_t>(lengths.data(), lengths.size()), at::kLong).to(all.cos.device());
  sequence = at::arange(batch, positions.options());
  rope = {all.cos.index_select(0, positions), all.sin.index_select(0, positions)};
  visible = at::arange(longest, positions.options()).le(positions.unsqueeze(1)).view({batch, 1, 1, longest});
}

LayerTrace decode_step(const config::ModelConfig& config, const LayerWeights& weights, const at::Tensor& x,
                       const StepRows& rows, LayerCache& cache, const parallel::TensorRanks& ranks) {
  return layer_around(config, weights, x, ranks, [&](const auto& q, const auto& k, const auto& v) {
    return attend_step(q, k, v, rows, cache);
  });
}

at::Tensor Backbone::embed(const at::Tensor& tokens) const {
  return ranks.leave(ranks.vocabulary_rows(embedding, tokens, config.vocab_size));
}

at::Tensor run_layers(const Backbone& backbone, const at::Tensor& tokens, int64_t depth,
                      const LayerListener& listener) {
  const c10::AutoGradMode no_grad(false);
  LayerTrace start;
  start.output = backbone.embed(tokens);
  listener(0, start);
  return continue_layers(backbone, std::move(start.output), depth, listener);
}

at::Tensor continue_layers(const Backbone& backbone, at::Tensor stream, int64_t depth,
                           const LayerListener& listener) {
  EE_CHECK(depth <= backbone.last_layer(), "depth {}, but layers {}..{} are loaded", depth,
           backbone.first_layer, backbone.last_layer());
  const c10::AutoGradMode no_grad(false);
  for (int64_t number = backbone.first_layer; number <= depth; ++number) {
    LayerTrace trace = decoder_layer(backbone.config, backbone.layer(number), stream, backbone.rope,
                                     /*cache=*/nullptr, backbone.ranks);
    listener(number, trace);
    stream = std::move(trace.output);
  }
  return stream;
}

}  // namespace ee::model
