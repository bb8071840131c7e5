#include "ee/checkpoint/model_folder.h"

#include <sys/resource.h>

#include <csignal>
#include <set>

#include "ee/base/error.h"
#include "folders.h"

namespace ee::checkpoint {
namespace {

using base::UserError;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

#define EXPECT_USER_ERROR(expression, matcher) \
  EXPECT_THAT([&] { (void)(expression); }, ThrowsMessage<UserError>(matcher))

constexpr const char* kQ = "model.layers.2.self_attn.q_proj.weight";

class ModelFolderTest : public ::testing::Test {
 protected:
  fs::path write(const Tensors& tensors) { return write_folder(folder_ / "model", backbone_, tensors); }

  // A folder with exits of all kinds whose weights are random.
  fs::path write_with_exits(at::ScalarType stored = at::kFloat) {
    const fs::path source = write_folder(folder_ / "model", backbone_);
    exits_ = test::tiny_exits(backbone_, all_kinds());
    write_model_folder(ModelFolder::open(source), exits_, folder_ / "exits", stored);
    return folder_ / "exits";
  }

  TempFolder folder_;
  model::Backbone backbone_ = test::tiny_backbone(byte_config());
  Tensors tensors_ = backbone_tensors(backbone_);
  std::vector<exits::ExitHead> exits_;
};

TEST_F(ModelFolderTest, LoadsWhatWasWritten) {
  const ModelFolder folder = ModelFolder::open(write(tensors_));
  EXPECT_FALSE(folder.has_exits());
  EXPECT_EQ(folder.config(), backbone_.config);
  const Tensors loaded = backbone_tensors(load_backbone(folder, {}));
  ASSERT_EQ(loaded.size(), tensors_.size());
  for (const auto& [name, tensor] : tensors_) EXPECT_TRUE(at::equal(loaded.at(name), tensor)) << name;
  EXPECT_USER_ERROR(folder.exits(), HasSubstr("ee-convert attach"));
}

TEST_F(ModelFolderTest, LoadsTheFirstLayersOnly) {
  const model::Backbone loaded = load_backbone(ModelFolder::open(write(tensors_)), {.last_layer = 2});
  EXPECT_EQ(loaded.layers.size(), 2u);
  EXPECT_EQ(loaded.config.layers, 6);
  EXPECT_TRUE(at::equal(loaded.layer(2).mlp.up.weight, backbone_.layer(2).mlp.up.weight));
}

TEST_F(ModelFolderTest, ComputesInTheStoredDtypeButF16InF32) {
  using config::Precision;
  for (const auto& [stored, expected] :
       {std::pair(at::kFloat, at::kFloat), {at::kBFloat16, at::kBFloat16}, {at::kHalf, at::kFloat}}) {
    const ModelFolder folder =
        ModelFolder::open(write(backbone_tensors(test::tiny_backbone(byte_config(), 1, stored))));
    EXPECT_EQ(compute_dtype(folder, Precision::stored, at::kCPU), expected);
    EXPECT_EQ(load_backbone(folder, {}).layer(1).mlp.up.weight.scalar_type(), expected);
    EXPECT_EQ(load_backbone(folder, {.precision = Precision::bf16}).final_norm.scalar_type(), at::kBFloat16);
    EXPECT_EQ(load_backbone(folder, {.precision = Precision::f32}).embedding.scalar_type(), at::kFloat);
  }
}

TEST_F(ModelFolderTest, TiedHeadIsTheEmbeddingItself) {
  config::ModelConfig config = byte_config();
  config.tie_embeddings = true;
  const model::Backbone tied = test::tiny_backbone(config);
  const fs::path path = write_folder(folder_ / "tied", tied);
  const model::Backbone loaded = load_backbone(ModelFolder::open(path), {});
  EXPECT_TRUE(loaded.head.is_same(loaded.embedding));
}

TEST_F(ModelFolderTest, NamesWhatIsMissingExtraMisshapedOrNoFloat) {
  Tensors tensors = tensors_;
  tensors.erase(kQ);
  EXPECT_USER_ERROR(ModelFolder::open(write(tensors)),
                    AllOf(HasSubstr(kQ), HasSubstr("missing"), HasSubstr("model.safetensors")));
  tensors = tensors_;
  tensors["model.layers.9.extra.weight"] = at::zeros({2});
  EXPECT_USER_ERROR(ModelFolder::open(write(tensors)), HasSubstr("model.layers.9.extra.weight"));
  tensors = tensors_;
  tensors[kQ] = at::zeros({32, 31});
  EXPECT_USER_ERROR(ModelFolder::open(write(tensors)),
                    AllOf(HasSubstr(kQ), HasSubstr("[32, 31]"), HasSubstr("expected [32, 32]")));
  tensors = tensors_;
  tensors[kQ] = at::zeros({32, 32}, at::kInt);
  EXPECT_USER_ERROR(ModelFolder::open(write(tensors)), AllOf(HasSubstr(kQ), HasSubstr("I32")));
}

TEST_F(ModelFolderTest, AllowsTheRotaryBuffersOfOldCheckpoints) {
  Tensors tensors = tensors_;
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::zeros({4});
  EXPECT_NO_THROW(ModelFolder::open(write(tensors)));
}

TEST_F(ModelFolderTest, LooksForTheLastLayerBeforeItMakesATableOfAll) {
  const fs::path path = write(tensors_);
  config::ModelConfig config = backbone_.config;
  config.layers = config::SizeLimits::kLayers;
  write_text(path / "config.json", config::write_model_config(config));
  EXPECT_USER_ERROR(ModelFolder::open(path),
                    AllOf(HasSubstr("model.layers.65535.input_layernorm.weight is missing"),
                          HasSubstr("num_hidden_layers 65536")));
}

TEST_F(ModelFolderTest, RefusesATruncatedFileAndAnEmptyFolder) {
  const fs::path path = write(tensors_);
  fs::resize_file(path / "model.safetensors", fs::file_size(path / "model.safetensors") - 1);
  EXPECT_USER_ERROR(ModelFolder::open(path), HasSubstr("model.safetensors"));
  fs::remove(path / "model.safetensors");
  EXPECT_USER_ERROR(ModelFolder::open(path), HasSubstr("neither model.safetensors nor"));
  write_text(path / "pytorch_model.bin", "");
  EXPECT_USER_ERROR(ModelFolder::open(path), HasSubstr("pytorch_model.bin"));
}

class ShardedFolderTest : public ModelFolderTest {
 protected:
  void SetUp() override {
    path_ = write(tensors_);
    fs::remove(path_ / "model.safetensors");
    Tensors shards[2];
    int number = 0;
    for (const auto& [name, tensor] : tensors_) shards[number++ % 2][name] = tensor;
    write_tensors(path_ / "a.safetensors", shards[0]);
    write_tensors(path_ / "b.safetensors", shards[1]);
    for (int shard : {0, 1})
      for (const auto& [name, tensor] : shards[shard]) map_[name] = shard ? "b.safetensors" : "a.safetensors";
    write_index();
  }

  void write_index() {
    std::string text;
    for (const auto& [name, file] : map_)
      text += fmt::format("{}\"{}\": \"{}\"", text.empty() ? "" : ",", name, file);
    write_text(path_ / "model.safetensors.index.json", "{\"weight_map\": {" + text + "}}");
  }

  fs::path path_;
  std::map<std::string, std::string> map_;
};

TEST_F(ShardedFolderTest, EqualsTheSingleFile) {
  const ModelFolder sharded = ModelFolder::open(path_);
  EXPECT_EQ(sharded.backbone_files().files().size(), 2u);
  const Tensors loaded = backbone_tensors(load_backbone(sharded, {}));
  for (const auto& [name, tensor] : tensors_) EXPECT_TRUE(at::equal(loaded.at(name), tensor)) << name;
  const fs::path single = write_folder(folder_ / "single", backbone_);
  EXPECT_EQ(fingerprint(sharded.backbone_files()), fingerprint(ModelFolder::open(single).backbone_files()));
}

TEST_F(ShardedFolderTest, AllowsRotaryBuffersThatTheIndexDoesNotList) {
  Tensors shard;
  for (const auto& [name, tensor] : tensors_)
    if (map_[name] == "a.safetensors") shard[name] = tensor;
  shard["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::zeros({4});
  write_tensors(path_ / "a.safetensors", shard);
  EXPECT_NO_THROW(ModelFolder::open(path_));
  shard["model.layers.0.self_attn.surprise"] = at::zeros({4});
  write_tensors(path_ / "a.safetensors", shard);
  EXPECT_USER_ERROR(ModelFolder::open(path_), AllOf(HasSubstr("surprise"), HasSubstr("does not say so")));
}

TEST_F(ShardedFolderTest, RefusesAnIndexThatLies) {
  const auto map = map_;
  map_[kQ] = map_[kQ][0] == 'a' ? "b.safetensors" : "a.safetensors";
  write_index();
  EXPECT_USER_ERROR(ModelFolder::open(path_), AllOf(HasSubstr(kQ), HasSubstr("no such tensor")));
  map_ = map;
  map_[kQ] = "../model/a.safetensors";
  write_index();
  EXPECT_USER_ERROR(ModelFolder::open(path_), HasSubstr("in the same folder"));
  map_ = map;
  map_.erase(kQ);
  write_index();
  EXPECT_USER_ERROR(ModelFolder::open(path_), AllOf(HasSubstr(kQ), HasSubstr("does not say so")));
  map_ = map;
  write_index();
  fs::remove(path_ / "b.safetensors");
  EXPECT_USER_ERROR(ModelFolder::open(path_), AllOf(HasSubstr("b.safetensors"), HasSubstr("does not exist")));
  write_text(path_ / "model.safetensors.index.json", "[]");
  EXPECT_USER_ERROR(ModelFolder::open(path_), HasSubstr("weight_map"));
}

TEST_F(ModelFolderTest, ExitsComeBackAsWritten) {
  const ModelFolder folder = ModelFolder::open(write_with_exits());
  const model::Backbone backbone = load_backbone(folder, {});
  std::vector<exits::ExitHead> loaded = load_exits(folder, backbone, {}, at::kFloat);
  ASSERT_EQ(loaded.size(), 4u);
  for (size_t i = 0; i < loaded.size(); ++i) {
    EXPECT_EQ(loaded[i].spec, exits_[i].spec);
    Tensors expected;
    exits::visit_exit(
        backbone.config, exits_[i],
        [&](const std::string& name, const auto&, at::Tensor& member) { expected[name] = member; });
    exits::visit_exit(backbone.config, loaded[i],
                      [&](const std::string& name, const auto&, at::Tensor& member) {
                        EXPECT_TRUE(at::equal(member, expected.at(name))) << name;
                      });
  }
  EXPECT_TRUE(loaded[0].head.is_same(backbone.head)) << "a shared head is the backbone's";
  EXPECT_FALSE(loaded[0].norm.defined());
}

TEST_F(ModelFolderTest, LoadsChosenExitsInAChosenDtype) {
  const ModelFolder folder = ModelFolder::open(write_with_exits(at::kBFloat16));
  const model::Backbone backbone = load_backbone(folder, {});
  const auto loaded = load_exits(folder, backbone, {4, 2}, at::kFloat);
  ASSERT_EQ(loaded.size(), 2u);
  EXPECT_EQ(loaded[0].spec.layer, 2);
  EXPECT_TRUE(at::equal(loaded[0].head, exits_[1].head.to(at::kBFloat16).to(at::kFloat)));
  EXPECT_USER_ERROR(load_exits(folder, backbone, {5}, at::kFloat), HasSubstr("no exit at layer 5"));
}

TEST_F(ModelFolderTest, BackboneAndOtherFilesStayByteIdentical) {
  const fs::path path = write_with_exits();
  for (const char* name : {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"})
    EXPECT_EQ(bytes_of(path / name), bytes_of(folder_ / "model" / name)) << name;
  write_text(path / "config.json", "{}");
  EXPECT_NE(bytes_of(folder_ / "model/config.json"), "{}") << "small files are copies, not links";
}

TEST_F(ModelFolderTest, RefusesDamagedExits) {
  const fs::path path = write_with_exits();
  const Tensors exits = [&] {
    Tensors tensors;
    const TensorFiles files = TensorFiles::open_file(path / "exits.safetensors");
    for (const auto& [name, file] : files.names()) tensors[name] = files.alias(name).clone();
    return tensors;
  }();
  const auto damaged = [&](auto damage) {
    Tensors tensors = exits;
    damage(tensors);
    write_tensors(path / "exits.safetensors", tensors);
    ModelFolder::open(path);
  };
  const std::string norm = "exits.2.norm.weight";
  EXPECT_NO_THROW(damaged([](Tensors&) {}));
  EXPECT_USER_ERROR(damaged([&](Tensors& t) { t.erase(norm); }),
                    AllOf(HasSubstr(norm), HasSubstr("missing")));
  EXPECT_USER_ERROR(damaged([&](Tensors& t) { t["exits.5.norm.weight"] = t[norm]; }),
                    HasSubstr("exits.5.norm"));
  EXPECT_USER_ERROR(damaged([&](Tensors& t) { t[norm] = at::zeros({31}); }),
                    HasSubstr("[31], expected [32]"));
  EXPECT_USER_ERROR(damaged([&](Tensors& t) { t[norm] = t[norm].to(at::kHalf); }), HasSubstr("one dtype"));
  fs::remove(path / "exits.safetensors");
  EXPECT_USER_ERROR(ModelFolder::open(path), HasSubstr("exits.safetensors is missing"));
}

TEST_F(ModelFolderTest, RefusesExitsOfAnotherBackbone) {
  const fs::path path = write_with_exits();
  fs::remove(path / "model.safetensors");
  write_tensors(path / "model.safetensors", backbone_tensors(test::tiny_backbone(byte_config(), 7)));
  EXPECT_USER_ERROR(ModelFolder::open(path),
                    AllOf(HasSubstr("another backbone"), HasSubstr("model.embed_tokens.weight"),
                          HasSubstr("ee-convert attach")));
  EXPECT_USER_ERROR(ModelFolder::open(path, Check::never),
                    AllOf(HasSubstr("another backbone"), HasSubstr("fingerprint")));
  EXPECT_NO_THROW(ModelFolder::open_backbone(path));
}

TEST_F(ModelFolderTest, ExistingOutputIsRefusedAndKept) {
  const fs::path source = write(tensors_);
  fs::create_directory(folder_ / "out");
  exits_ = test::tiny_exits(backbone_, all_kinds());
  EXPECT_USER_ERROR(write_model_folder(ModelFolder::open(source), exits_, folder_ / "out", at::kFloat),
                    HasSubstr("exists"));
  EXPECT_TRUE(fs::is_empty(folder_ / "out"));
  EXPECT_THAT(unexpected_names(folder_.path(), {"model", "out"}), IsEmpty());
}

// A limit on file sizes fails writes as a full disk does: some way into the file.
TEST_F(ModelFolderTest, FullDiskLeavesNothingBehind) {
  const ModelFolder source = ModelFolder::open(write(tensors_));
  exits_ = test::tiny_exits(backbone_, all_kinds());
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 20000;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_USER_ERROR(write_model_folder(source, exits_, folder_ / "out", at::kFloat),
                    HasSubstr("cannot write"));
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(unexpected_names(folder_.path(), {"model"}), IsEmpty());
}

TEST(Fingerprint, SeesEveryKindOfChange) {
  const TempFolder folder;
  std::set<std::string> seen;
  const auto add = [&](const Tensors& tensors) {
    write_tensors(folder / "x.safetensors", tensors);
    return seen.insert(fingerprint(TensorFiles::open_file(folder / "x.safetensors"))).second;
  };
  const at::Tensor a = at::arange(60000, at::kFloat);
  EXPECT_TRUE(add({{"a", a}}));
  EXPECT_FALSE(add({{"a", a.clone()}}));
  EXPECT_TRUE(add({{"b", a}}));
  EXPECT_TRUE(add({{"a", a.view({100, 600})}}));
  EXPECT_TRUE(add({{"a", a.to(at::kInt)}}));
  for (const int64_t at : {0, 30000, 59999}) {
    at::Tensor changed = a.clone();
    changed.select(0, at).add_(1);
    EXPECT_TRUE(add({{"a", changed}})) << at;
  }
}

}  // namespace
}  // namespace ee::checkpoint
