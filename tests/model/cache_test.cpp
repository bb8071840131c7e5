// A forward pass in pieces through the KV cache equals one pass over everything.
#include <numeric>

#include "support/tiny_model.h"

namespace ee::model {
namespace {

struct Shape {
  std::string name;
  int64_t heads, kv_heads;
};

class CachedForward : public ::testing::TestWithParam<Shape> {
 protected:
  static constexpr int64_t kBatch = 2, kSeq = 13;

  CachedForward() {
    config::ModelConfig config = test::tiny_config();
    config.heads = GetParam().heads;
    config.kv_heads = GetParam().kv_heads;
    backbone_ = test::tiny_backbone(config);
    tokens_ = at::randint(config.vocab_size, {kBatch, kSeq}, at::kLong);
  }

  // Hidden states behind the last layer, [batch, seq, hidden], fed `pieces` positions at a time.
  at::Tensor in_pieces(const std::vector<int64_t>& pieces) const {
    std::vector<LayerCache> caches;
    for (size_t i = 0; i < backbone_.layers.size(); ++i) {
      caches.push_back(LayerCache::allocate(backbone_.config, kBatch, kSeq, backbone_.options()));
    }
    std::vector<at::Tensor> outputs;
    int64_t done = 0;
    for (const int64_t piece : pieces) {
      at::Tensor hidden = backbone_.embed(tokens_.narrow(1, done, piece));
      for (size_t i = 0; i < caches.size(); ++i) {
        hidden =
            decoder_layer(backbone_.config, backbone_.layers[i], hidden, backbone_.rope, &caches[i]).output;
      }
      outputs.push_back(hidden);
      done += piece;
    }
    EXPECT_EQ(caches.front().length, kSeq);
    return at::cat(outputs, 1);
  }

  void expect_whole(const std::vector<int64_t>& pieces) const {
    const at::Tensor whole = run_layers(backbone_, tokens_, 6, [](auto&&...) {});
    EXPECT_LE(in_pieces(pieces).sub(whole).abs().max().item<float>(), 1e-4 * whole.abs().max().item<float>());
  }

  Backbone backbone_;
  at::Tensor tokens_;
};
INSTANTIATE_TEST_SUITE_P(Heads, CachedForward,
                         ::testing::Values(Shape{"one_kv_head", 4, 1}, Shape{"grouped", 4, 2},
                                           Shape{"all_kv_heads", 4, 4}),
                         [](const auto& info) { return info.param.name; });

TEST_P(CachedForward, OneByOneEqualsWhole) { expect_whole(std::vector<int64_t>(kSeq, 1)); }
TEST_P(CachedForward, PromptThenOneByOneEqualsWhole) { expect_whole({9, 1, 1, 1, 1}); }
TEST_P(CachedForward, ChunksEqualWhole) { expect_whole({4, 5, 1, 3}); }
TEST_P(CachedForward, AllAtOnceEqualsWhole) { expect_whole({kSeq}); }

TEST(LayerCache, RefusesMoreThanItsCapacity) {
  const Backbone backbone = test::tiny_backbone(test::tiny_config());
  LayerCache cache = LayerCache::allocate(backbone.config, 1, 4, backbone.options());
  const at::Tensor x = at::randn({1, 5, backbone.config.hidden_size});
  EXPECT_THROW(decoder_layer(backbone.config, backbone.layers[0], x, backbone.rope, &cache),
               base::InternalError);
  EXPECT_EQ(cache.length, 0);
}

}  // namespace
}  // namespace ee::model
