// One decoder layer against a naive one, with and without autograd; what run_layers() promises its listener.
#include <ATen/ops/rsqrt.h>

#include "pointwise.h"
#include "support/tiny_model.h"

namespace ee::model {
namespace {

float max_difference(const at::Tensor& a, const at::Tensor& b) { return a.sub(b).abs().max().item<float>(); }

// Loops over heads and positions; f64, so that its own rounding does not matter.
at::Tensor naive_attention(const config::ModelConfig& config, const AttentionWeights& weights,
                           const at::Tensor& x, const Rope& rope) {
  const int64_t d = config.head_dim, seq = x.size(1), group = config.heads / config.kv_heads;
  const auto project = [&](const Linear& linear) {
    return x.to(at::kDouble).matmul(linear.weight.to(at::kDouble).t());
  };
  const RopeRows rows = rope.rows(0, seq);
  const at::Tensor cos = at::cat({rows.cos, rows.cos}, 1), sin = at::cat({rows.sin, rows.sin}, 1);
  const auto rotated = [&](const at::Tensor& head) {  // [seq, d]
    const at::Tensor swapped = at::cat({head.narrow(1, d / 2, d / 2).neg(), head.narrow(1, 0, d / 2)}, 1);
    return head.mul(cos).add(swapped.mul(sin));
  };
  const at::Tensor q = project(weights.q), k = project(weights.k), v = project(weights.v);
  at::Tensor mixed = at::zeros({x.size(0), seq, config.heads * d}, at::kDouble);
  for (int64_t b = 0; b < x.size(0); ++b) {
    for (int64_t h = 0; h < config.heads; ++h) {
      const at::Tensor head_q = rotated(q[b].narrow(1, h * d, d));
      const at::Tensor head_k = rotated(k[b].narrow(1, h / group * d, d));
      const at::Tensor head_v = v[b].narrow(1, h / group * d, d);
      for (int64_t i = 0; i < seq; ++i) {
        const at::Tensor scores = head_k.narrow(0, 0, i + 1).mv(head_q[i]).div(std::sqrt(double(d)));
        mixed[b][i].narrow(0, h * d, d).copy_(scores.softmax(0).matmul(head_v.narrow(0, 0, i + 1)));
      }
    }
  }
  return mixed.matmul(weights.o.weight.to(at::kDouble).t());
}

at::Tensor naive_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x.mul(x.square().mean(-1, true).add(eps).rsqrt()).mul(weight);
}

class DecoderLayer : public ::testing::Test {
 protected:
  Backbone backbone_ = test::tiny_backbone(test::tiny_config());
  const config::ModelConfig& config_ = backbone_.config;
  const LayerWeights& weights_ = backbone_.layers[2];
  at::Tensor x_ = at::randn({2, 11, config_.hidden_size});
};

TEST_F(DecoderLayer, EqualsNaiveLayer) {
  const LayerTrace trace = decoder_layer(config_, weights_, x_, backbone_.rope);
  const at::Tensor x = x_.to(at::kDouble);
  const at::Tensor normed = naive_norm(x, weights_.input_norm, config_.rms_norm_eps);
  const at::Tensor post = x.add(naive_attention(config_, weights_.attention, normed, backbone_.rope));
  const at::Tensor mlp_input = naive_norm(post, weights_.post_attention_norm, config_.rms_norm_eps);
  const auto times = [](const at::Tensor& t, const Linear& linear) {
    return t.matmul(linear.weight.to(at::kDouble).t());
  };
  const at::Tensor gate = times(mlp_input, weights_.mlp.gate);
  const at::Tensor inner = gate.mul(gate.sigmoid()).mul(times(mlp_input, weights_.mlp.up));
  EXPECT_LE(max_difference(trace.post_attention, post), 1e-4);
  EXPECT_LE(max_difference(trace.mlp_input, mlp_input), 1e-4);
  EXPECT_LE(max_difference(trace.output, post.add(times(inner, weights_.mlp.down))), 1e-4);
}

TEST_F(DecoderLayer, LeavesItsInputAlone) {
  const at::Tensor before = x_.clone();
  const LayerTrace trace = decoder_layer(config_, weights_, x_, backbone_.rope);
  EXPECT_TRUE(at::equal(x_, before));
  EXPECT_FALSE(trace.output.is_alias_of(trace.post_attention));
}

TEST_F(DecoderLayer, GivesTheSameWithAutograd) {
  const LayerTrace plain = decoder_layer(config_, weights_, x_, backbone_.rope);
  const LayerTrace recorded = decoder_layer(config_, weights_, x_.clone().requires_grad_(), backbone_.rope);
  EXPECT_TRUE(recorded.output.requires_grad());
  EXPECT_LE(max_difference(plain.post_attention, recorded.post_attention), 1e-5);
  EXPECT_LE(max_difference(plain.output, recorded.output), 1e-4);
}

// The fast paths against the plain operations that autograd records.
class Pointwise : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor random(at::IntArrayRef shape) const { return at::randn(shape).to(GetParam()); }
  static at::Tensor recorded(const at::Tensor& t) { return t.clone().requires_grad_(); }
  double tolerance() const { return GetParam() == at::kFloat ? 1e-5 : 3e-2; }
};
INSTANTIATE_TEST_SUITE_P(Dtypes, Pointwise, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return c10::toString(info.param); });

TEST_P(Pointwise, RotateEqualsPlain) {
  config::ModelConfig config = test::tiny_config();
  for (const int64_t head_dim : {2, 8, 20, 64}) {
    config.head_dim = head_dim;
    const RopeRows rope = Rope(config, at::kCPU).rows(0, 9);
    const at::Tensor x = random({2, 9, 3, head_dim});
    const at::Tensor plain = rotate(recorded(x), rope);
    EXPECT_LE(max_difference(rotate(x.clone(), rope), plain), tolerance()) << head_dim;
  }
}

TEST_P(Pointwise, RmsNormEqualsPlain) {
  for (const int64_t hidden : {1, 7, 64, 576}) {
    const at::Tensor x = random({3, 5, hidden}), weight = random({hidden});
    EXPECT_LE(max_difference(rms_norm(x, weight, 1e-5), rms_norm(recorded(x), weight, 1e-5)), tolerance())
        << hidden;
  }
}

TEST_P(Pointwise, RmsNormKeepsStatisticsInF32) {
  const at::Tensor x = at::full({1, 256}, 1.0e17f).to(GetParam());  // squares overflow f16, sums need f32
  const at::Tensor y = rms_norm(x, at::ones({256}).to(GetParam()), 1e-5);
  EXPECT_LE(max_difference(y, at::ones({1, 256})), 1e-2);
}

TEST_P(Pointwise, SiluTimesEqualsPlain) {
  const at::Tensor gate = random({3, 5, 100}).mul_(8), up = random({3, 5, 100});
  EXPECT_LE(max_difference(silu_times(gate.clone(), up), silu_times(recorded(gate), up)), 10 * tolerance());
}

TEST(RunLayers, ShowsEveryDepthInOrder) {
  const Backbone backbone = test::tiny_backbone(test::tiny_config());
  const at::Tensor tokens = at::randint(97, {2, 7}, at::kLong);
  std::vector<at::Tensor> streams;
  const at::Tensor last = run_layers(backbone, tokens, 4, [&](int64_t depth, const LayerTrace& trace) {
    EXPECT_EQ(depth, static_cast<int64_t>(streams.size()));
    EXPECT_EQ(trace.post_attention.defined(), depth > 0);
    streams.push_back(trace.output);
  });
  ASSERT_EQ(streams.size(), 5u);
  EXPECT_TRUE(at::equal(streams[0], backbone.embed(tokens)));
  EXPECT_TRUE(at::equal(streams[4], last));
  for (int64_t layer = 1; layer <= 4; ++layer) {  // what a listener keeps is not overwritten by later layers
    const LayerTrace again =
        decoder_layer(backbone.config, backbone.layer(layer), streams[layer - 1], backbone.rope);
    EXPECT_TRUE(at::equal(again.output, streams[layer]));
  }
}

TEST(RunLayers, RecordsNoGradient) {
  Backbone backbone = test::tiny_backbone(test::tiny_config());
  backbone.layers[0].input_norm.requires_grad_();
  const at::Tensor out = run_layers(backbone, at::zeros({1, 3}, at::kLong), 2, [](auto&&...) {});
  EXPECT_FALSE(out.requires_grad());
}

TEST(TensorTable, NamesWhatTransformersNames) {
  config::ModelConfig config = test::tiny_config();
  config.layers = 1;
  config.qkv_bias = true;
  std::vector<std::string> names;
  for (const TensorEntry& entry : tensor_table(config)) {
    names.push_back(entry.name);
    EXPECT_EQ(entry.layer, entry.name.starts_with("model.layers.0.") ? 1 : 0) << entry.name;
  }
  const std::string layer = "model.layers.0.";
  EXPECT_THAT(names, ::testing::ElementsAre(
                         "model.embed_tokens.weight", layer + "input_layernorm.weight",
                         layer + "self_attn.q_proj.weight", layer + "self_attn.q_proj.bias",
                         layer + "self_attn.k_proj.weight", layer + "self_attn.k_proj.bias",
                         layer + "self_attn.v_proj.weight", layer + "self_attn.v_proj.bias",
                         layer + "self_attn.o_proj.weight", layer + "post_attention_layernorm.weight",
                         layer + "mlp.gate_proj.weight", layer + "mlp.up_proj.weight",
                         layer + "mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"));
}

TEST(TensorTable, TiedHeadHasNoEntry) {
  config::ModelConfig config = test::tiny_config();
  config.tie_embeddings = true;
  EXPECT_EQ(tensor_table(config).back().name, "model.norm.weight");
}

}  // namespace
}  // namespace ee::model
