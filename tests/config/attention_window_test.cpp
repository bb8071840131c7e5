#include "ee/config/model_config.h"
#include "support.h"

namespace ee::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Four layers and 8192 positions, with `keys` in front of the rest.
std::string config_json(const std::string& model_type, const std::string& keys) {
  return R"({"model_type": ")" + model_type + R"(", )" + keys + R"("vocab_size": 32, "hidden_size": 16,
      "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
      "max_position_embeddings": 8192, "rms_norm_eps": 1e-6})";
}

ModelConfig read(const std::string& json) {
  TempFolder folder;
  folder.write("config.json", json);
  return read_model_config(folder.path());
}

std::string error_of(const std::string& model_type, const std::string& keys) {
  return user_error([&] { read(config_json(model_type, keys)); });
}

// The layers with a window, of what transformers' classes make of the same keys.
std::vector<int64_t> windowed(const std::string& model_type, const std::string& keys) {
  return read(config_json(model_type, keys)).window_layers;
}

TEST(AttentionWindow, MistralsIsOnEveryLayer) {
  const ModelConfig config = read(config_json("mistral", R"("sliding_window": 4096, )"));
  EXPECT_EQ(config.window, 4096);
  EXPECT_THAT(config.window_layers, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(text_limit(config).tokens, 4096);
  EXPECT_THAT(text_limit(config).reason, HasSubstr("sliding_window"));
  EXPECT_EQ(read(config_json("mistral", "")).window, 4096) << "MistralConfig's default";
}

TEST(AttentionWindow, NullOrOneThatNoTextOutgrowsIsNone) {
  for (const char* keys :
       {R"("sliding_window": null, )", R"("sliding_window": 8192, )", R"("sliding_window": 131072, )"}) {
    const ModelConfig config = read(config_json("mistral", keys));
    EXPECT_EQ(config.window, 0) << keys;
    EXPECT_THAT(config.window_layers, IsEmpty()) << keys;
    EXPECT_EQ(text_limit(config).tokens, 8192) << keys;
    EXPECT_EQ(text_limit(config).reason, "max_position_embeddings");
  }
}

// Qwen2Config: layer i (from 0) has the window when i >= max_window_layers, and use_sliding_window is true.
TEST(AttentionWindow, Qwen2sIsBehindMaxWindowLayers) {
  EXPECT_THAT(windowed("qwen2", R"("use_sliding_window": false, "sliding_window": 4096, )"), IsEmpty());
  const std::string on = R"("use_sliding_window": true, "sliding_window": 4096, )";
  EXPECT_THAT(windowed("qwen2", on + R"("max_window_layers": 4, )"), IsEmpty());
  EXPECT_THAT(windowed("qwen2", on + R"("max_window_layers": 28, )"), IsEmpty());
  EXPECT_THAT(windowed("qwen2", on), IsEmpty()) << "28 is the default";
  EXPECT_THAT(windowed("qwen2", on + R"("max_window_layers": 3, )"), ElementsAre(4));
  EXPECT_THAT(windowed("qwen2", on + R"("max_window_layers": 0, )"), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(
      windowed("qwen2", R"("use_sliding_window": true, "sliding_window": null, "max_window_layers": 0, )"),
      IsEmpty());
}

TEST(AttentionWindow, LayerTypesComeBeforeMaxWindowLayers) {
  const std::string types = R"("layer_types": ["full_attention", "sliding_attention", "full_attention",
      "sliding_attention"], "max_window_layers": 0, "sliding_window": 64, )";
  const ModelConfig config = read(config_json("qwen2", types + R"("use_sliding_window": true, )"));
  EXPECT_THAT(config.window_layers, ElementsAre(2, 4));
  EXPECT_EQ(config.window, 64);
  EXPECT_THAT(error_of("qwen2", types), HasSubstr("layer_types: names sliding_attention, but there is no"));
  EXPECT_THAT(error_of("llama", types), HasSubstr("layer_types: names sliding_attention, but there is no"));
  EXPECT_THAT(error_of("mistral", types), HasSubstr("layer_types: contradicts sliding_window"));
}

TEST(AttentionWindow, RefusesWhatIsNoWindowOrNoTypeOfLayer) {
  EXPECT_THAT(error_of("mistral", R"("sliding_window": 0, )"),
              HasSubstr("sliding_window: must be null or at least 1, got 0"));
  EXPECT_THAT(error_of("llama", R"("layer_types": ["full_attention"], )"),
              HasSubstr("layer_types: has 1 entries, num_hidden_layers is 4"));
  EXPECT_THAT(
      error_of("qwen2", R"("layer_types": ["full_attention", "chunked_attention"], )"),
      HasSubstr(R"(layer_types[1]: "chunked_attention" is unknown; expected one of full_attention, )"));
}

TEST(AttentionWindow, WhatIsWrittenReadsBackEqual) {
  ModelConfig config = read(config_json("mistral", R"("sliding_window": 64, )"));
  EXPECT_EQ(read(write_model_config(config)), config);
  config = read(
      config_json("qwen2", R"("sliding_window": 64, "use_sliding_window": true, "max_window_layers": 2, )"));
  EXPECT_THAT(config.window_layers, ElementsAre(3, 4));
  EXPECT_EQ(read(write_model_config(config)), config);
}

}  // namespace
}  // namespace ee::config
