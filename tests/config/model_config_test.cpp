#include "ee/config/model_config.h"

#include "support.h"

namespace ee::config {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// SmolLM2-135M-Instruct, as transformers 4.42 wrote it.
constexpr const char* kSmolLm2 = R"({
  "architectures": ["LlamaForCausalLM"],
  "attention_bias": false,
  "attention_dropout": 0.0,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "hidden_act": "silu",
  "hidden_size": 576,
  "initializer_range": 0.041666666666666664,
  "intermediate_size": 1536,
  "is_llama_config": true,
  "max_position_embeddings": 8192,
  "mlp_bias": false,
  "model_type": "llama",
  "num_attention_heads": 9,
  "num_hidden_layers": 30,
  "num_key_value_heads": 3,
  "pad_token_id": 2,
  "pretraining_tp": 1,
  "rms_norm_eps": 1e-05,
  "rope_interleaved": false,
  "rope_scaling": null,
  "rope_theta": 100000,
  "tie_word_embeddings": true,
  "torch_dtype": "bfloat16",
  "transformers_version": "4.42.3",
  "use_cache": true,
  "vocab_size": 49152
})";

ModelConfig smollm2() {
  return {.model_type = "llama",
          .vocab_size = 49152,
          .hidden_size = 576,
          .intermediate_size = 1536,
          .layers = 30,
          .heads = 9,
          .kv_heads = 3,
          .head_dim = 64,
          .max_positions = 8192,
          .rms_norm_eps = 1e-5,
          .tie_embeddings = true,
          .qkv_bias = false,
          .output_bias = false,
          .mlp_bias = false,
          .rope = {.theta = 100000},
          .bos_token = 1,
          .eos_tokens = {2},
          .dtype = "bfloat16"};
}

ModelConfig read(const std::string& config_json) {
  TempFolder folder;
  folder.write("config.json", config_json);
  return read_model_config(folder.path());
}

std::string error_of(const std::string& config_json) {
  return user_error([&] { read(config_json); });
}

std::string smol(std::string_view from, std::string_view to) { return with(kSmolLm2, from, to); }

TEST(ModelConfig, ReadsSmolLm2) {
  EXPECT_EQ(read(kSmolLm2), smollm2());
  EXPECT_EQ(read("\xEF\xBB\xBF" + std::string(kSmolLm2)), smollm2()) << "a byte order mark is no part of it";
}

TEST(ModelConfig, Transformers5SpellingMeansTheSame) {
  const std::string v5 = with(smol(R"("rope_scaling": null,
  "rope_theta": 100000,)",
                                   R"("rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},)"),
                              "torch_dtype", "dtype");
  EXPECT_EQ(read(v5), smollm2());
}

TEST(ModelConfig, ParametersByLayerTypeMeanTheSame) {
  EXPECT_EQ(
      read(smol(R"("rope_theta": 100000)",
                R"("rope_parameters": {"full_attention": {"rope_theta": 1e5, "rope_type": "default"}})")),
      smollm2());
}

TEST(ModelConfig, HeadDimIsTrustedWhenGivenAndDerivedWhenNot) {
  EXPECT_EQ(read(smol(R"("hidden_act")", R"("head_dim": 128, "hidden_act")")).head_dim, 128);
  EXPECT_EQ(read(smol(R"("hidden_act")", R"("head_dim": null, "hidden_act")")).head_dim, 64);
  EXPECT_THAT(error_of(smol(R"("hidden_size": 576)", R"("hidden_size": 577)")),
              HasSubstr("hidden_size: 577 is not a multiple of num_attention_heads 9"));
}

TEST(ModelConfig, AbsentKeysTakeTheFamilysDefaults) {
  const ModelConfig config = read(R"({"model_type": "llama", "vocab_size": 32, "hidden_size": 16,
      "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
      "rms_norm_eps": 1e-6})");
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.rope, RopeConfig{});
  EXPECT_FALSE(config.tie_embeddings);
  EXPECT_FALSE(config.bos_token);
  EXPECT_THAT(config.eos_tokens, IsEmpty());
  EXPECT_EQ(config.dtype, "");
}

TEST(ModelConfig, LlamaBiasesAreOptions) {
  const ModelConfig config = read(with(smol(R"("attention_bias": false)", R"("attention_bias": true)"),
                                       R"("mlp_bias": false)", R"("mlp_bias": true)"));
  EXPECT_TRUE(config.qkv_bias && config.output_bias && config.mlp_bias);
}

TEST(ModelConfig, ReadsLlama3ScalingInBothSpellings) {
  const RopeConfig expected{.theta = 500000,
                            .scaling = RopeConfig::Scaling::llama3,
                            .factor = 32,
                            .low_freq_factor = 1,
                            .high_freq_factor = 4,
                            .original_max_positions = 8192};
  const std::string keys = R"("factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                              "original_max_position_embeddings": 8192, "rope_type": "llama3")";
  const std::string old_spelling = R"("rope_scaling": {)" + keys + R"(},
  "rope_theta": 500000.0,)";
  const std::string new_spelling = R"("rope_parameters": {)" + keys + R"(, "rope_theta": 500000.0},)";
  const char* absent = R"("rope_scaling": null,
  "rope_theta": 100000,)";
  EXPECT_EQ(read(smol(absent, old_spelling)).rope, expected);
  EXPECT_EQ(read(smol(absent, new_spelling)).rope, expected);
  EXPECT_EQ(read(smol(absent, old_spelling + new_spelling)).rope, expected);
  EXPECT_THAT(error_of(smol(absent, with(old_spelling, "32.0", "8.0") + new_spelling)),
              HasSubstr("rope_scaling: contradicts rope_parameters"));
}

TEST(ModelConfig, ReadsLinearScalingWithTheOldestKey) {
  const ModelConfig config =
      read(smol(R"("rope_scaling": null)", R"("rope_scaling": {"type": "linear", "factor": 2.5})"));
  EXPECT_EQ(config.rope,
            (RopeConfig{.theta = 100000, .scaling = RopeConfig::Scaling::linear, .factor = 2.5}));
}

TEST(ModelConfig, RefusesRopeItCannotCompute) {
  const auto scaling = [](const char* object) {
    return error_of(smol(R"("rope_scaling": null)", fmt::format(R"("rope_scaling": {})", object)));
  };
  EXPECT_THAT(
      scaling(R"({"rope_type": "yarn", "factor": 4})"),
      HasSubstr(R"(rope_scaling.rope_type: "yarn" is unknown; expected one of default, linear, llama3)"));
  EXPECT_THAT(scaling(R"({"rope_type": "llama3", "factor": 4, "low_freq_factor": 4, "high_freq_factor": 1})"),
              AllOf(HasSubstr("rope_scaling.original_max_position_embeddings: required, but missing"),
                    HasSubstr("rope_scaling.low_freq_factor: must be below high_freq_factor 1, got 4")));
  EXPECT_THAT(scaling(R"({"rope_type": "linear"})"), HasSubstr("rope_scaling.factor: required, but missing"));
  EXPECT_THAT(scaling(R"({"rope_type": "linear", "factor": 0})"), HasSubstr("factor: must be > 0, got 0"));
  EXPECT_THAT(scaling("7"), HasSubstr("rope_scaling: expected object {...}, got number 7"));
  EXPECT_THAT(error_of(smol(R"("rope_theta": 100000)", R"("rope_theta": -1)")),
              HasSubstr("rope_theta: must be > 0"));
  EXPECT_THAT(error_of(smol(R"("rope_theta": 100000)", R"("partial_rotary_factor": 0.5)")),
              HasSubstr("partial_rotary_factor: is not supported"));
}

TEST(ModelConfig, MistralHasNoBiases) {
  const std::string mistral =
      with(smol(R"("llama")", R"("mistral")"), R"("use_cache")", R"("sliding_window": null, "use_cache")");
  ModelConfig expected = smollm2();
  expected.model_type = "mistral";
  EXPECT_EQ(read(mistral), expected);
  EXPECT_THAT(error_of(with(mistral, R"("num_key_value_heads": 3,)", "")),
              HasSubstr("num_key_value_heads: required, but missing"));
}

TEST(ModelConfig, Qwen2HasBiasesOnQueryKeyAndValueOnly) {
  const ModelConfig config = read(smol(R"("llama")", R"("qwen2")"));
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.output_bias || config.mlp_bias);
}

TEST(ModelConfig, GenerationConfigOverridesSpecialTokens) {
  TempFolder folder;
  folder.write("config.json", kSmolLm2);
  folder.write("generation_config.json", R"({"bos_token_id": 5, "eos_token_id": [7, 9]})");
  EXPECT_THAT(read_model_config(folder.path()).eos_tokens, ElementsAre(7, 9));
  EXPECT_EQ(read_model_config(folder.path()).bos_token, 5);
  folder.write("generation_config.json", R"({"temperature": 0.6, "eos_token_id": null})");
  EXPECT_EQ(read_model_config(folder.path()), smollm2());
  folder.write("generation_config.json", R"({"eos_token_id": 49152})");
  EXPECT_THAT(
      user_error([&] { read_model_config(folder.path()); }),
      HasSubstr("generation_config.json: eos_token_id: token 49152 is not in the vocabulary of 49152"));
}

TEST(ModelConfig, NamesEveryMissingKeyAndTheFile) {
  EXPECT_THAT(error_of(with(smol(R"("hidden_size": 576,)", ""), R"("rms_norm_eps": 1e-05,)", "")),
              AllOf(HasSubstr("config.json: 2 problems"),
                    HasSubstr("hidden_size: required, but missing; expected integer"),
                    HasSubstr("rms_norm_eps: required, but missing; expected number")));
  EXPECT_THAT(error_of(smol(R"("model_type": "llama",)", "")),
              HasSubstr("model_type: required, but missing"));
}

TEST(ModelConfig, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(error_of(smol(R"("llama")", R"("gpt_neox")")),
              HasSubstr(R"(model_type "gpt_neox" is not supported; supported are llama, mistral, qwen2)"));
  EXPECT_THAT(error_of(smol("silu", "gelu")),
              HasSubstr(R"(hidden_act: "gelu" is not supported; supported: silu)"));
  EXPECT_THAT(error_of(smol("bfloat16", "float8")), HasSubstr(R"(torch_dtype: "float8" is not supported)"));
  EXPECT_THAT(error_of(smol(R"("use_cache")", R"("quantization_config": {"bits": 4}, "use_cache")")),
              HasSubstr("quantization_config: is not supported"));
}

TEST(ModelConfig, RefusesWrongTypesAndContradictingSizes) {
  EXPECT_THAT(error_of(smol(R"("hidden_size": 576)", R"("hidden_size": "576")")),
              HasSubstr(R"(hidden_size: expected integer, got text "576")"));
  EXPECT_THAT(error_of(smol(R"("vocab_size": 49152)", R"("vocab_size": 1e300)")),
              HasSubstr("vocab_size: expected integer, got number 1e+300"));
  EXPECT_THAT(error_of(smol(R"("vocab_size": 49152)", R"("vocab_size": 18446744073709551615)")),
              HasSubstr("vocab_size: expected integer"));
  EXPECT_THAT(error_of(smol(R"("num_hidden_layers": 30)", R"("num_hidden_layers": 0)")),
              HasSubstr("num_hidden_layers: must be in [1, 65536], got 0"));
  EXPECT_THAT(error_of(smol(R"("num_attention_heads": 9)", R"("num_attention_heads": 0)")),
              HasSubstr("num_attention_heads: must be in"));
  EXPECT_THAT(error_of(smol(R"("num_key_value_heads": 3)", R"("num_key_value_heads": 2)")),
              HasSubstr("num_key_value_heads: must divide num_attention_heads 9, got 2"));
  EXPECT_THAT(error_of(smol(R"("hidden_act")", R"("head_dim": 63, "hidden_act")")),
              HasSubstr("head_dim: must be even for rotary embeddings, got 63"));
  EXPECT_THAT(error_of(smol(R"("eos_token_id": 2)", R"("eos_token_id": [2, "</s>"])")),
              HasSubstr(R"(eos_token_id[1]: expected integer, got text "</s>")"));
  EXPECT_THAT(error_of(smol(R"("bos_token_id": 1)", R"("bos_token_id": -1)")),
              HasSubstr("bos_token_id: token -1 is not in the vocabulary"));
}

TEST(ModelConfig, RefusesSizesThatNoModelHas) {
  const std::pair<const char*, const char*> sizes[] = {
      {R"("vocab_size": 49152)", "vocab_size"},
      {R"("hidden_size": 576)", "hidden_size"},
      {R"("intermediate_size": 1536)", "intermediate_size"},
      {R"("num_hidden_layers": 30)", "num_hidden_layers"},
      {R"("num_attention_heads": 9)", "num_attention_heads"},
      {R"("num_key_value_heads": 3)", "num_key_value_heads"},
      {R"("max_position_embeddings": 8192)", "max_position_embeddings"}};
  for (const auto& [found, key] : sizes)
    for (const char* size : {"2147483648", "4611686018427387904"})  // 2^31, 2^62
      EXPECT_THAT(error_of(smol(found, fmt::format(R"("{}": {})", key, size))),
                  HasSubstr(fmt::format("{}: must be in [1, ", key)));
}

TEST(ModelConfig, RefusesNumbersThatCannotBeComputedWith) {
  const auto eps = [](const char* value) {
    return error_of(smol(R"("rms_norm_eps": 1e-05)", fmt::format(R"("rms_norm_eps": {})", value)));
  };
  EXPECT_THAT(eps("0"), HasSubstr("rms_norm_eps: must be > 0, got 0"));
  EXPECT_THAT(eps("-1e-5"), HasSubstr("rms_norm_eps: must be > 0, got -1e-05"));
  EXPECT_THAT(eps("1.5"), HasSubstr("rms_norm_eps: must be at most 1, got 1.5"));
  EXPECT_THAT(eps("null"), HasSubstr("rms_norm_eps: required, but missing"));
  // Python's json writes and reads these, JSON has none of them.
  for (const char* value : {"NaN", "Infinity", "-Infinity", "1e999"})
    for (const auto& [key, text] : {std::pair(R"("rms_norm_eps": 1e-05)", R"("rms_norm_eps": )"),
                                    {R"("rope_theta": 100000)", R"("rope_theta": )"}})
      EXPECT_THAT(error_of(smol(key, std::string(text) + value)), HasSubstr("config.json is not valid JSON"))
          << text << value;
}

TEST(ModelConfig, RefusesFilesThatAreNoConfig) {
  EXPECT_THAT(error_of(""), HasSubstr("config.json is empty"));
  EXPECT_THAT(error_of("[]"), HasSubstr("config.json: a JSON object {...} was expected, got a list"));
  EXPECT_THAT(error_of("{\n  \"model_type\": llama}"),
              AllOf(HasSubstr("config.json is not valid JSON"), HasSubstr("line 2, column 17")));
  TempFolder folder;
  EXPECT_THAT(user_error([&] { read_model_config(folder.path()); }), HasSubstr("config.json: No such file"));
  EXPECT_THAT(user_error([&] { read_model_config(folder.path() / "absent"); }), HasSubstr("is not a folder"));
}

TEST(ModelConfig, WhatIsWrittenReadsBackEqual) {
  ModelConfig llama3 = smollm2();
  llama3.qkv_bias = llama3.output_bias = llama3.mlp_bias = true;
  llama3.rms_norm_eps = 9.999999747378752e-06;
  llama3.eos_tokens = {2, 7};
  llama3.head_dim = 80;
  llama3.rope = {.theta = 5e5,
                 .scaling = RopeConfig::Scaling::llama3,
                 .factor = 32,
                 .low_freq_factor = 1,
                 .high_freq_factor = 4,
                 .original_max_positions = 8192};
  ModelConfig linear = smollm2();
  linear.rope = {.theta = 12345.678, .scaling = RopeConfig::Scaling::linear, .factor = 1.1};
  ModelConfig mistral = smollm2();
  mistral.model_type = "mistral";
  mistral.bos_token = std::nullopt;
  mistral.eos_tokens = {};
  mistral.dtype = "";
  ModelConfig qwen2 = smollm2();
  qwen2.model_type = "qwen2";
  qwen2.qkv_bias = true;
  for (const ModelConfig& config : {smollm2(), llama3, linear, mistral, qwen2})
    EXPECT_EQ(read(write_model_config(config)), config) << write_model_config(config);
}

TEST(ModelConfig, BiasesWithoutAKeyAreNotWritten) {
  ModelConfig config = smollm2();
  config.qkv_bias = true;  // llama's attention_bias is for o_proj, too
  EXPECT_THROW(write_model_config(config), base::InternalError);
}

}  // namespace
}  // namespace ee::config
