#include "ee/base/error.h"
#include "ee/checkpoint/attach.h"
#include "ee/checkpoint/verify.h"
#include "folders.h"

namespace ee::checkpoint {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// config.json says tie_word_embeddings true; what is loaded is what transformers 5 loads from the same files.
class TiedHeadTest : public ::testing::Test {
 protected:
  TiedHeadTest() {
    config::ModelConfig config = byte_config();
    config.tie_embeddings = true;
    tied_ = test::tiny_backbone(config);
    tensors_ = backbone_tensors(tied_);
  }
  ModelFolder open() { return ModelFolder::open(write_folder(folder_ / "model", tied_, tensors_)); }

  TempFolder folder_;
  model::Backbone tied_;
  Tensors tensors_;
};

TEST_F(TiedHeadTest, AnEqualHeadIsTheEmbedding) {
  tensors_["lm_head.weight"] = tied_.embedding.clone();
  const ModelFolder folder = open();
  EXPECT_TRUE(folder.config().tie_embeddings);
  const model::Backbone loaded = load_backbone(folder, {});
  EXPECT_TRUE(loaded.head.is_same(loaded.embedding));
}

TEST_F(TiedHeadTest, OneThatDiffersInAnyElementIsItsOwn) {
  for (const int64_t row : {int64_t{0}, int64_t{77}, tied_.config.vocab_size - 1}) {
    tensors_["lm_head.weight"] = tied_.embedding.clone();
    tensors_["lm_head.weight"][row][5] += 1;
    const ModelFolder folder = open();
    EXPECT_FALSE(folder.config().tie_embeddings) << row;
    const model::Backbone loaded = load_backbone(folder, {});
    EXPECT_TRUE(at::equal(loaded.head, tensors_["lm_head.weight"])) << row;
    EXPECT_TRUE(at::equal(loaded.embedding, tied_.embedding)) << row;
  }
}

TEST_F(TiedHeadTest, AHeadAloneServesAsTheEmbedding) {
  tensors_["lm_head.weight"] = tied_.embedding;
  tensors_.erase("model.embed_tokens.weight");
  const ModelFolder folder = open();
  EXPECT_TRUE(folder.config().tie_embeddings);
  const model::Backbone loaded = load_backbone(folder, {});
  EXPECT_TRUE(at::equal(loaded.embedding, tied_.embedding));
  EXPECT_TRUE(loaded.head.is_same(loaded.embedding));
}

TEST_F(TiedHeadTest, NeitherOfThemIsAnError) {
  tensors_.erase("model.embed_tokens.weight");
  EXPECT_THAT([&] { open(); }, ThrowsMessage<base::UserError>(
                                   HasSubstr("model.embed_tokens.weight with shape [260, 32] is missing")));
}

TEST_F(TiedHeadTest, EveryKindAttachesAndVerifies) {
  const auto check = [&](const char* output) {
    open();
    attach_exits({.source = folder_ / "model", .output = folder_ / output, .exits = all_kinds()});
    EXPECT_NO_THROW(verify_model_folder(folder_ / output, [](const std::string&) {})) << output;
  };
  check("embedding-alone");
  tensors_["lm_head.weight"] = tied_.embedding.clone();
  check("equal");
  tensors_["lm_head.weight"][3].zero_();
  check("different");
  tensors_.erase("model.embed_tokens.weight");
  check("head-alone");
}

}  // namespace
}  // namespace ee::checkpoint
