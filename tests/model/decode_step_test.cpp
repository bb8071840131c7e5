// One new row of each of several sequences equals each sequence's own forward pass.
#include "ee/model/decode_step.h"

#include <gtest/gtest.h>

#include "support/tiny_model.h"

namespace ee::model {
namespace {

TEST(DecodeStep, RowsOfUnequalSequencesEqualEachSequenceAlone) {
  for (const int64_t kv_heads : {1, 2, 4}) {
    config::ModelConfig config = test::tiny_config();
    config.kv_heads = kv_heads;
    const Backbone backbone = test::tiny_backbone(config);
    const std::vector<int64_t> lengths = {9, 0, 4, 17};
    LayerCache shared = LayerCache::allocate(config, 4, 32, backbone.options());
    shared.k.fill_(100.0);  // behind a sequence's end: must not be seen
    shared.v.fill_(100.0);
    const at::Tensor rows = at::randn({4, 1, config.hidden_size});
    std::vector<at::Tensor> expected;
    for (int64_t i = 0; i < 4; ++i) {
      LayerCache own{.k = shared.k.narrow(0, i, 1), .v = shared.v.narrow(0, i, 1)};
      const int64_t length = lengths[static_cast<size_t>(i)];
      if (length > 0) {
        decoder_layer(config, backbone.layer(1), at::randn({1, length, config.hidden_size}), backbone.rope,
                      &own);
      }
      LayerCache copy{.k = own.k.clone(), .v = own.v.clone(), .length = length};
      expected.push_back(
          decoder_layer(config, backbone.layer(1), rows.narrow(0, i, 1), backbone.rope, &copy).output);
    }
    const at::Tensor output =
        decode_step(config, backbone.layer(1), rows, StepRows(backbone.rope, lengths), shared).output;
    EXPECT_TRUE(at::allclose(output, at::cat(expected, 0), 1e-4, 1e-5)) << kv_heads << " key heads";
  }
}

}  // namespace
}  // namespace ee::model
