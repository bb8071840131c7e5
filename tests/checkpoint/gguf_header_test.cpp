#include <cmath>
#include <limits>

#include "ee/base/error.h"
#include "ee/checkpoint/attach.h"
#include "gguf_writer.h"

namespace ee::checkpoint {
namespace {

using base::UserError;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What the header of a GGUF file says, and what is refused by it before anything is written.
class GgufHeaderTest : public ::testing::Test {
 protected:
  config::ModelConfig read() {
    gguf_.write(folder_ / "model.gguf");
    return read_source_config(folder_ / "model.gguf");
  }
  void attach(const fs::path& source) {
    attach_exits({.source = source, .output = folder_ / "out", .exits = all_kinds()});
  }
  // Of attaching, which must leave nothing behind and name the user's file.
  std::string error() {
    gguf_.write(folder_ / "model.gguf");
    try {
      attach(folder_ / "model.gguf");
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("model.gguf"), Not(HasSubstr("/out"))));
      EXPECT_THAT(unexpected_names(folder_.path(), {"model.gguf"}), IsEmpty());
      return error.what();
    }
    return "no error";
  }
  template <typename T>
  std::string error_with(const std::string& key, T value) {
    const GgufWriter good = gguf_;
    gguf_.set("llama." + key, value);
    const std::string text = error();
    gguf_ = good;
    return text;
  }

  TempFolder folder_;
  model::Backbone backbone_ = test::tiny_backbone(byte_config());
  GgufWriter gguf_ = gguf_of(backbone_);
};

TEST_F(GgufHeaderTest, SizesMayBeListsOfEqualNumbers) {
  gguf_.set("llama.attention.head_count", std::vector<int32_t>(6, 4));
  gguf_.set("llama.attention.head_count_kv", std::vector<int32_t>(6, 2));
  gguf_.set("llama.feed_forward_length", std::vector<int32_t>(6, 48));
  const config::ModelConfig config = read();
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.intermediate_size, 48);
}

TEST_F(GgufHeaderTest, LayersOfDifferentSizesAreRefused) {
  EXPECT_THAT(error_with("attention.head_count_kv", std::vector<int32_t>{2, 2, 4, 2, 2, 2}),
              HasSubstr("llama.attention.head_count_kv is 2 for layer 1 and 4 for layer 3"));
  EXPECT_THAT(error_with("attention.head_count_kv", std::vector<int32_t>{2, 2}),
              HasSubstr("llama.attention.head_count_kv is a list of 2 numbers, but the model has 6 layers"));
  EXPECT_THAT(error_with("feed_forward_length", std::vector<int32_t>{48, 48, 48, 48, 48, 49}),
              HasSubstr("llama.feed_forward_length is 48 for layer 1 and 49 for layer 6"));
  EXPECT_THAT(error_with("attention.head_count", std::vector<int32_t>(6, 0)),
              HasSubstr("llama.attention.head_count is 0, expected a number from 1"));
}

TEST_F(GgufHeaderTest, SizesThatNoModelHasAreRefused) {
  for (const char* key : {"block_count", "embedding_length", "feed_forward_length", "attention.head_count",
                          "attention.head_count_kv", "attention.key_length", "context_length"}) {
    EXPECT_THAT(error_with(key, uint32_t{1} << 31),
                AllOf(HasSubstr(key), HasSubstr("is 2147483648, expected")));
    EXPECT_THAT(error_with(key, uint64_t{1} << 62),
                AllOf(HasSubstr(key), HasSubstr("expected a number from 1")));
    EXPECT_THAT(error_with(key, uint64_t{1} << 63), AllOf(HasSubstr(key), HasSubstr("2^63 or more")));
    EXPECT_THAT(error_with(key, uint32_t{0}), AllOf(HasSubstr(key), HasSubstr("is 0, expected")));
  }
}

TEST_F(GgufHeaderTest, LooksForTheLastLayerBeforeItMakesAnythingForEach) {
  EXPECT_THAT(error_with("block_count", 65536u),
              HasSubstr("llama.block_count is 65536, but there is no tensor blk.65535.attn_norm.weight"));
  EXPECT_THAT(error_with("block_count", 1000000u), HasSubstr("expected a number from 1 to 65536"));
  EXPECT_THAT(error_with("block_count", 7u), HasSubstr("there is no tensor blk.6.attn_norm.weight"));
}

TEST_F(GgufHeaderTest, NumbersThatCannotBeComputedWithAreRefused) {
  for (const char* key : {"rope.freq_base", "attention.layer_norm_rms_epsilon", "rope.scaling.factor"})
    for (const float value : {kNan, kInfinity, -kInfinity, -1.0f})
      EXPECT_THAT(error_with(key, value), AllOf(HasSubstr(key), HasSubstr("positive, finite number")))
          << value;
  EXPECT_THAT(error_with("rope.freq_base", 0.0f), HasSubstr("llama.rope.freq_base is 0, expected"));
  EXPECT_THAT(error_with("attention.layer_norm_rms_epsilon", 0.0f), HasSubstr("rms_epsilon is 0, expected"));
  EXPECT_THAT(error_with("attention.layer_norm_rms_epsilon", 1.5f),
              HasSubstr("llama.attention.layer_norm_rms_epsilon is 1.5, expected at most 1"));
  EXPECT_THAT(error_with("rope.scaling.attn_factor", 2.0f), HasSubstr("rope.scaling.attn_factor is 2"));
}

// llama.cpp: the type is linear unless the file says otherwise, and 0 is no factor.
TEST_F(GgufHeaderTest, AFactorWithoutATypeOfScalingIsLinear) {
  using Scaling = config::RopeConfig::Scaling;
  gguf_.set("llama.rope.scaling.factor", 4.0f);
  EXPECT_EQ(read().rope.scaling, Scaling::linear);
  EXPECT_EQ(read().rope.factor, 4.0);
  gguf_.set("llama.rope.scale_linear", 2.0f);
  EXPECT_EQ(read().rope.factor, 4.0);
  gguf_.erase("llama.rope.scaling.factor");
  EXPECT_EQ(read().rope.factor, 2.0) << "the old key";
  gguf_.set("llama.rope.scaling.factor", 0.0f);
  EXPECT_EQ(read().rope, byte_config().rope);
  gguf_.set("llama.rope.scaling.factor", 4.0f);
  gguf_.set("llama.rope.scaling.type", "none");
  EXPECT_EQ(read().rope, byte_config().rope);
}

TEST_F(GgufHeaderTest, TypesOfTensorsThatAreNotKnownAreRefused) {
  gguf_.types["blk.5.ffn_up.weight"] = 25;  // I16
  EXPECT_THAT(error(),
              AllOf(HasSubstr("tensor blk.5.ffn_up.weight in"), HasSubstr("has type I16, which cannot be")));
  gguf_.types["blk.5.ffn_up.weight"] = 99;
  EXPECT_THAT(error(),
              AllOf(HasSubstr("tensor blk.5.ffn_up.weight in"), HasSubstr("unknown element type 99")));
}

class GgufShardsImportTest : public GgufHeaderTest {
 protected:
  // The model in two files, the head in the second one.
  void SetUp() override {
    GgufWriter second;
    second.tensors["output.weight"] = gguf_.tensors.at("output.weight");
    gguf_.tensors.erase("output.weight");
    uint32_t number = 0;
    for (GgufWriter* shard : {&gguf_, &second}) {
      shard->set("split.no", number);
      shard->set("split.count", 2u);
      shard->set("split.tensors.count", static_cast<uint32_t>(gguf_.tensors.size()) + 1);
      shard->write(shard_[number++]);
    }
  }

  const fs::path shard_[2] = {folder_ / "m-00001-of-00002.gguf", folder_ / "m-00002-of-00002.gguf"};
};

TEST_F(GgufShardsImportTest, AHeadInAnotherShardIsTheModelsOwn) {
  for (const fs::path& shard : shard_) {
    fs::remove_all(folder_ / "out");
    attach(shard);
    const ModelFolder folder = ModelFolder::open(folder_ / "out");
    EXPECT_FALSE(folder.config().tie_embeddings);
    EXPECT_TRUE(at::equal(load_backbone(folder, {}).head, backbone_.head));
  }
}

TEST_F(GgufShardsImportTest, AMissingShardIsNoTiedHead) {
  fs::remove(shard_[1]);
  EXPECT_THAT([&] { attach(shard_[0]); }, ::testing::ThrowsMessage<UserError>(HasSubstr(
                                              "shard 2 is missing: there is no " + shard_[1].string())));
  EXPECT_THAT(unexpected_names(folder_.path(), {"m-00001-of-00002.gguf"}), IsEmpty());
}

}  // namespace
}  // namespace ee::checkpoint
