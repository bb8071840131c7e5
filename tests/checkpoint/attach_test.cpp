#include "ee/checkpoint/attach.h"

#include "ee/base/error.h"
#include "ee/checkpoint/verify.h"
#include "ee/tokenizer/tokenizer.h"
#include "folders.h"
#include "gguf_writer.h"
#include "support/smollm2.h"

namespace ee::checkpoint {
namespace {

using base::UserError;
using config::ExitKind;
using config::ExitPosition;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

#define EXPECT_USER_ERROR(expression, matcher) \
  EXPECT_THAT([&] { (void)(expression); }, ThrowsMessage<UserError>(matcher))

Tensors exit_tensors(const fs::path& folder) {
  Tensors tensors;
  const TensorFiles files = TensorFiles::open_file(folder / "exits.safetensors");
  for (const auto& [name, file] : files.names()) tensors[name] = files.alias(name).clone();
  return tensors;
}

class AttachTest : public ::testing::Test {
 protected:
  AttachOptions options(const fs::path& source, const std::string& output) {
    return {.source = source, .output = folder_ / output, .exits = all_kinds()};
  }
  fs::path write_gguf(const GgufWriter& gguf) {
    gguf.write(folder_ / "model.gguf");
    return folder_ / "model.gguf";
  }

  TempFolder folder_;
  model::Backbone backbone_ = test::tiny_backbone(byte_config());
};

TEST_F(AttachTest, CopiesTheBackbonesWeightsIntoExits) {
  attach_exits(options(write_folder(folder_ / "model", backbone_), "out"));
  const Tensors exits = exit_tensors(folder_ / "out");
  EXPECT_TRUE(at::equal(exits.at("exits.3.mlp.up_proj.weight"), backbone_.layer(3).mlp.up.weight));
  EXPECT_TRUE(
      at::equal(exits.at("exits.4.layer.self_attn.q_proj.weight"), backbone_.layer(6).attention.q.weight));
  EXPECT_TRUE(at::equal(exits.at("exits.2.head.weight"), backbone_.head));
  EXPECT_TRUE(at::equal(exits.at("exits.3.norm.weight"), backbone_.final_norm));
  EXPECT_EQ(ModelFolder::open(folder_ / "out").exits().exits, all_kinds());
  EXPECT_EQ(bytes_of(folder_ / "out/model.safetensors"), bytes_of(folder_ / "model/model.safetensors"));
}

TEST_F(AttachTest, StoresExitsInTheBackbonesDtypeButF16InF32) {
  for (const auto& [stored, expected] :
       {std::pair(at::kFloat, at::kFloat), {at::kBFloat16, at::kBFloat16}, {at::kHalf, at::kFloat}}) {
    const std::string name = c10::toString(stored);
    attach_exits(
        options(write_folder(folder_ / name, test::tiny_backbone(byte_config(), 1, stored)), name + "-out"));
    EXPECT_EQ(exit_tensors(folder_ / (name + "-out")).begin()->second.scalar_type(), expected) << name;
  }
}

TEST_F(AttachTest, RandomExitsDependOnTheSeedOnly) {
  const fs::path source = write_folder(folder_ / "model", backbone_);
  const auto attach = [&](const std::string& output, uint64_t seed) {
    AttachOptions o = options(source, output);
    for (auto& spec : o.exits) spec.init = config::InitKind::random;
    o.seed = seed;
    attach_exits(o);
    return bytes_of(folder_ / output / "exits.safetensors");
  };
  const std::string first = attach("a", 1);
  EXPECT_EQ(first, attach("b", 1));
  EXPECT_NE(first, attach("c", 2));
}

TEST_F(AttachTest, AttachingAgainReplacesTheExits) {
  attach_exits(options(write_folder(folder_ / "model", backbone_), "out"));
  AttachOptions again = options(folder_ / "out", "again");
  again.exits = {{.layer = 5, .kind = ExitKind::norm}};
  attach_exits(again);
  EXPECT_EQ(ModelFolder::open(folder_ / "again").exits().exits, again.exits);
  for (const char* name : {"model.safetensors", "config.json", "tokenizer.json"})
    EXPECT_EQ(bytes_of(folder_ / "again" / name), bytes_of(folder_ / "model" / name)) << name;
}

TEST_F(AttachTest, BadExitsOrSourcesLeaveNothingBehind) {
  const fs::path source = write_folder(folder_ / "model", backbone_);
  AttachOptions o = options(source, "out");
  o.exits[0].layer = 7;
  EXPECT_USER_ERROR(attach_exits(o), HasSubstr("7"));
  o = options(source, "out");
  o.dtype = format::DType::bf16;
  EXPECT_USER_ERROR(attach_exits(o), HasSubstr("GGUF file only"));
  EXPECT_USER_ERROR(attach_exits(options(folder_ / "nowhere", "out")), HasSubstr("no model at"));
  fs::create_directory(folder_ / "exists");
  EXPECT_USER_ERROR(attach_exits(options(source, "exists")), HasSubstr("exists already"));
  fs::resize_file(source / "model.safetensors", 5000);
  EXPECT_USER_ERROR(attach_exits(options(source, "out")), HasSubstr("model.safetensors"));
  EXPECT_THAT(unexpected_names(folder_.path(), {"model", "exists"}), IsEmpty());
}

TEST_F(AttachTest, ATokenizerThatNothingCanOpenIsRefusedWithItsSource) {
  const fs::path source = write_folder(folder_ / "model", backbone_);
  std::string tokenizer = bytes_of(source / "tokenizer.json");
  const std::string none = R"("normalizer": null)";
  tokenizer.replace(tokenizer.find(none), none.size(), R"("normalizer": {"type": "Lowercase"})");
  write_text(source / "tokenizer.json", tokenizer);
  EXPECT_USER_ERROR(attach_exits(options(source, "out")),
                    AllOf(HasSubstr("tokenizer of " + source.string()), HasSubstr("Lowercase")));

  GgufWriter gguf = gguf_of(backbone_);
  gguf.set("tokenizer.ggml.merges", std::vector<std::string>{"no such"});
  const fs::path file = write_gguf(gguf);
  EXPECT_USER_ERROR(attach_exits(options(file, "out")),
                    AllOf(HasSubstr("tokenizer of " + file.string()), HasSubstr("merge 0")));
  EXPECT_THAT(unexpected_names(folder_.path(), {"model", "model.gguf"}), IsEmpty());
}

TEST_F(AttachTest, MovingThereAndBackChangesNothing) {
  AttachOptions o = options(write_folder(folder_ / "model", backbone_), "after");
  o.exits = {{.layer = 2, .kind = ExitKind::norm}, {.layer = 5, .kind = ExitKind::layer, .weight = 0.25}};
  attach_exits(o);
  move_exits(folder_ / "after", ExitPosition::before, folder_ / "before");
  move_exits(folder_ / "before", ExitPosition::after, folder_ / "back");
  const auto moved = ModelFolder::open(folder_ / "before").exits().exits;
  EXPECT_EQ(moved[0].layer, 3);
  EXPECT_EQ(moved[1].position, ExitPosition::before);
  EXPECT_EQ(moved[1].depth(), 5);
  const Tensors after = exit_tensors(folder_ / "after"), before = exit_tensors(folder_ / "before");
  EXPECT_TRUE(
      at::equal(after.at("exits.5.layer.mlp.up_proj.weight"), before.at("exits.6.layer.mlp.up_proj.weight")));
  for (const auto& entry : fs::directory_iterator(folder_ / "after"))
    EXPECT_EQ(bytes_of(entry.path()), bytes_of(folder_ / "back" / entry.path().filename().string()))
        << entry.path();
}

TEST_F(AttachTest, MovesOnlyWhereItIsExact) {
  const fs::path source = write_folder(folder_ / "model", backbone_);
  const auto move = [&](config::ExitSpec spec, ExitPosition position) {
    AttachOptions o = options(source, "exits");
    fs::remove_all(o.output);
    o.exits = {spec};
    attach_exits(o);
    move_exits(o.output, position, folder_ / "moved");
  };
  EXPECT_USER_ERROR(move({.layer = 3, .kind = ExitKind::mlp}, ExitPosition::before), HasSubstr("mlp"));
  EXPECT_USER_ERROR(move({.layer = 6, .kind = ExitKind::norm}, ExitPosition::before), HasSubstr("7"));
  EXPECT_USER_ERROR(
      move({.layer = 1, .kind = ExitKind::norm, .position = ExitPosition::before}, ExitPosition::after),
      HasSubstr("0"));
  EXPECT_FALSE(fs::exists(folder_ / "moved"));
  EXPECT_NO_THROW(move({.layer = 3, .kind = ExitKind::mlp}, ExitPosition::after)) << "it is there already";
}

TEST_F(AttachTest, GgufGivesTheHuggingFaceTensorsBack) {
  attach_exits(options(write_gguf(gguf_of(backbone_)), "out"));
  const ModelFolder folder = ModelFolder::open(folder_ / "out");
  config::ModelConfig expected = byte_config();
  EXPECT_EQ(folder.config(), expected);
  const Tensors loaded = backbone_tensors(load_backbone(folder, {}));
  for (const auto& [name, tensor] : backbone_tensors(backbone_))
    EXPECT_TRUE(at::equal(loaded.at(name), tensor)) << name;
  EXPECT_NO_THROW(verify_model_folder(folder_ / "out", [](const std::string&) {}));
}

TEST_F(AttachTest, GgufTiedHeadAndDtype) {
  GgufWriter gguf = gguf_of(backbone_);
  gguf.tensors.erase("output.weight");
  AttachOptions o = options(write_gguf(gguf), "out");
  o.dtype = format::DType::bf16;
  attach_exits(o);
  const ModelFolder folder = ModelFolder::open(folder_ / "out");
  EXPECT_TRUE(folder.config().tie_embeddings);
  EXPECT_EQ(folder.config().dtype, "bfloat16");
  EXPECT_TRUE(at::equal(load_backbone(folder, {}).layer(2).attention.q.weight,
                        backbone_.layer(2).attention.q.weight.to(at::kBFloat16)));
}

TEST_F(AttachTest, GgufRopeScaling) {
  GgufWriter linear = gguf_of(backbone_);
  linear.set("llama.rope.scaling.type", "linear");
  linear.set("llama.rope.scaling.factor", 4.0f);
  EXPECT_EQ(read_source_config(write_gguf(linear)).rope.factor, 4.0);

  // Llama 3.1's numbers for head_dim 8 and theta 500000, from transformers' formula:
  // wavelengths 2 pi * theta^(i/4) = 6.3, 167, 4443, 118144; unscaled below 8192/4, divided by 8 above 8192.
  GgufWriter llama3 = gguf_of(backbone_);
  llama3.set("llama.rope.freq_base", 500000.0f);
  const double smooth = (8192 / (2 * M_PI * std::sqrt(500000.0)) - 1) / 3;
  const double middle = 1 / ((1 - smooth) / 8 + smooth);
  const std::vector<float> factors = {1, 1, static_cast<float>(middle), 8};
  llama3.tensors["rope_freqs.weight"] = at::tensor(factors);
  const config::RopeConfig rope = read_source_config(write_gguf(llama3)).rope;
  EXPECT_EQ(rope.scaling, config::RopeConfig::Scaling::llama3);
  EXPECT_EQ(rope.factor, 8.0);
  EXPECT_EQ(rope.original_max_positions, 8192);
  llama3.tensors["rope_freqs.weight"].select(0, 2).add_(0.1);
  EXPECT_USER_ERROR(read_source_config(write_gguf(llama3)), HasSubstr("rope_freqs.weight[2]"));
}

TEST_F(AttachTest, RefusesAGgufItWouldMisread) {
  const auto attach = [&](auto change) {
    GgufWriter gguf = gguf_of(backbone_);
    change(gguf);
    attach_exits(options(write_gguf(gguf), "out"));
  };
  const auto key = [](const char* name, auto value) { return [=](GgufWriter& g) { g.set(name, value); }; };
  EXPECT_USER_ERROR(attach(key("general.architecture", "gemma2")), HasSubstr("gemma2"));
  EXPECT_USER_ERROR(attach(key("llama.expert_count", 8u)), HasSubstr("expert_count"));
  EXPECT_USER_ERROR(attach(key("llama.rope.scaling.type", "yarn")), HasSubstr("yarn"));
  EXPECT_USER_ERROR(attach(key("llama.rope.dimension_count", 4u)), HasSubstr("rope.dimension_count"));
  EXPECT_USER_ERROR(attach(key("llama.attention.head_count", 0u)), HasSubstr("head_count"));
  EXPECT_USER_ERROR(attach(key("llama.feed_forward_length", 47u)), AllOf(HasSubstr("ffn_"), HasSubstr("47")));
  EXPECT_USER_ERROR(attach(key("tokenizer.ggml.eos_token_id", 999u)), HasSubstr("999"));
  EXPECT_USER_ERROR(attach(key("tokenizer.ggml.pre", "unheard-of")), HasSubstr("unheard-of"));
  EXPECT_USER_ERROR(attach([](GgufWriter& g) { g.erase("llama.block_count"); }), HasSubstr("block_count"));
  EXPECT_USER_ERROR(attach([](GgufWriter& g) { g.tensors.erase("blk.3.ffn_up.weight"); }),
                    HasSubstr("blk.3.ffn_up.weight"));
  EXPECT_USER_ERROR(attach([](GgufWriter& g) { g.tensors["blk.3.surprise"] = at::zeros({4}); }),
                    HasSubstr("blk.3.surprise"));
  EXPECT_USER_ERROR(attach([](GgufWriter& g) { g.tensors["blk.0.attn_q.bias"] = at::zeros({32}); }),
                    HasSubstr("attn_output"));
  EXPECT_THAT(unexpected_names(folder_.path(), {"model.gguf"}), IsEmpty());
}

TEST_F(AttachTest, RefusesATruncatedGguf) {
  const fs::path file = write_gguf(gguf_of(backbone_));
  fs::resize_file(file, fs::file_size(file) - 100);
  EXPECT_USER_ERROR(attach_exits(options(file, "out")), HasSubstr("model.gguf"));
  fs::resize_file(file, 30);
  EXPECT_USER_ERROR(attach_exits(options(file, "out")), HasSubstr("model.gguf"));
  EXPECT_THAT(unexpected_names(folder_.path(), {"model.gguf"}), IsEmpty());
}

TEST_F(AttachTest, SmolLm2FromItsGguf) {
  AttachOptions o = options(test::smollm2_gguf(), "smol");
  o.dtype = format::DType::bf16;  // half the bytes to write
  o.exits = {{.layer = 10}, {.layer = 16}, {.layer = 22}};
  attach_exits(o);
  const ModelFolder folder = ModelFolder::open(folder_ / "smol");
  EXPECT_EQ(folder.config().layers, 30);
  EXPECT_EQ(folder.config().rms_norm_eps, 1e-5);
  EXPECT_EQ(folder.config().rope.theta, 100000.0);
  EXPECT_TRUE(folder.config().tie_embeddings);
  EXPECT_EQ(folder.config().eos_tokens, (std::vector<int64_t>{2, 0, 4})) << "im_end, endoftext, reponame";
  EXPECT_EQ(tokenizer::Tokenizer::load(folder_ / "smol")->vocab_size(), 49152);

  AttachOptions again = options(folder_ / "smol", "again");
  again.exits = {{.layer = 5, .kind = ExitKind::norm}};
  attach_exits(again);
  EXPECT_EQ(fs::hard_link_count(folder_ / "again/model.safetensors"), 2u) << "shared, so byte-identical";
}

}  // namespace
}  // namespace ee::checkpoint
