#include <ATen/ops/ones_like.h>

#include <nlohmann/json.hpp>

#include "checkpoint/folders.h"
#include "convert_commands.h"
#include "ee/base/error.h"

namespace ee::cli {
namespace {

using base::UserError;
using checkpoint::TempFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Args = std::vector<std::string>;

class ConvertTest : public ::testing::Test {
 protected:
  void SetUp() override {
    checkpoint::write_folder(folder_ / "model", test::tiny_backbone(checkpoint::byte_config()));
  }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::string run(int (*command)(const Args&), const Args& args) {
    ::testing::internal::CaptureStdout();
    try {
      EXPECT_EQ(command(args), 0);
    } catch (...) {
      ::testing::internal::GetCapturedStdout();
      throw;
    }
    return ::testing::internal::GetCapturedStdout();
  }
  std::string attach(Args args) {
    args.insert(args.begin(), {"--model", path("model"), "--output", path("out")});
    return run(convert_attach, args);
  }
  void expect_attach_error(Args args, const ::testing::Matcher<std::string>& matcher) {
    args.insert(args.begin(), {"--model", path("model"), "--output", path("out")});
    EXPECT_THAT([&] { convert_attach(args); }, ThrowsMessage<UserError>(matcher));
    EXPECT_FALSE(std::filesystem::exists(path("out")));
  }

  TempFolder folder_;
};

TEST_F(ConvertTest, AttachesByTheShortForm) {
  attach({"--exit-layers", "2::2", "--kind", "layer", "--head", "own", "--init", "random", "--weight", "0.5",
          "--temperature", "2", "--position", "before", "--norm", "shared"});
  const auto exits = checkpoint::ModelFolder::open(path("out")).exits().exits;
  ASSERT_EQ(exits.size(), 3u);
  const config::ExitSpec expected = {.layer = 2,
                                     .kind = config::ExitKind::layer,
                                     .position = config::ExitPosition::before,
                                     .head = config::HeadKind::own,
                                     .norm = config::NormKind::shared,
                                     .init = config::InitKind::random,
                                     .weight = 0.5,
                                     .temperature = 2};
  EXPECT_EQ(exits.front(), expected);
}

TEST_F(ConvertTest, EmbeddingExitsHaveNoNormUnlessAsked) {
  attach({"--exit-layers", "2", "--kind", "embedding"});
  EXPECT_EQ(checkpoint::ModelFolder::open(path("out")).exits().exits.front().norm, config::NormKind::none);
}

TEST_F(ConvertTest, AttachesByASpecFile) {
  checkpoint::write_text(
      folder_ / "spec.json",
      R"({"exits": [{"layer": 4, "kind": "norm"}, {"layer": 2, "kind": "mlp", "weight": 0.1}]})");
  attach({"--exits", path("spec.json")});
  const auto exits = checkpoint::ModelFolder::open(path("out")).exits().exits;
  ASSERT_EQ(exits.size(), 2u);
  EXPECT_EQ(exits[0].weight, 0.1);
  EXPECT_EQ(exits[1].kind, config::ExitKind::norm);
}

TEST_F(ConvertTest, RefusesBadArguments) {
  expect_attach_error({}, HasSubstr("exactly one of --exits FILE and --exit-layers"));
  expect_attach_error({"--exits", "s.json", "--kind", "mlp"}, HasSubstr("write them into s.json"));
  expect_attach_error({"--exits", path("absent.json")}, HasSubstr("absent.json"));
  expect_attach_error({"--exit-layers", "7"}, HasSubstr("7"));
  expect_attach_error({"--exit-layers", "2,2"}, HasSubstr("2"));
  expect_attach_error({"--exit-layers", "2", "--kind", "nrom"}, HasSubstr("norm"));
  expect_attach_error({"--exit-layers", "2", "--position", "before"}, HasSubstr("mlp"));
  expect_attach_error({"--exit-layers", "2", "--temperature", "0"}, HasSubstr("temperature"));
  expect_attach_error({"--exit-layers", "2", "--dtype", "f64"}, HasSubstr("f64"));
  expect_attach_error({"--exit-layers", "2", "--seed", "-1"}, HasSubstr("--seed"));
}

TEST_F(ConvertTest, InspectCountsParametersAndBytes) {
  attach({"--exit-layers", "2,4", "--kind", "mlp"});
  const auto json = nlohmann::json::parse(run(convert_inspect, {path("out"), "--json"}));
  // 2 x vocab 260 x hidden 32; 6 layers of q, o 32x32, k, v 16x32, three 48x32, two norms; the final norm
  const int64_t parameters = 2 * 260 * 32 + 6 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32 + 2 * 32) + 32;
  EXPECT_EQ(json["parameters"], parameters);
  EXPECT_EQ(json["bytes"], 4 * parameters);
  EXPECT_EQ(json["dtype"], "F32");
  EXPECT_EQ(json["tokenizer"]["kind"], "byte-level BPE");
  EXPECT_EQ(json["tokenizer"]["vocab_size"], 256);
  ASSERT_EQ(json["exits"].size(), 2u);
  EXPECT_EQ(json["exits"][1]["layer"], 4);
  EXPECT_EQ(json["exits"][1]["parameters"], 3 * 48 * 32 + 32);
  EXPECT_THAT(run(convert_inspect, {path("out")}),
              AllOf(HasSubstr("after layer 4: mlp"), HasSubstr("head shared")));
  EXPECT_THAT(run(convert_inspect, {path("model")}), HasSubstr("none; attach some"));
}

TEST_F(ConvertTest, VerifyPrintsALinePerCheck) {
  attach({"--exit-layers", "2,4"});
  EXPECT_THAT(run(convert_verify, {path("out")}), AllOf(HasSubstr("OK  values"), HasSubstr("2 exits")));
}

TEST_F(ConvertTest, MovesAndSaysWhere) {
  attach({"--exit-layers", "2,4", "--kind", "norm"});
  EXPECT_THAT(run(convert_move, {"--model", path("out"), "--position", "before", "--output", path("moved")}),
              AllOf(HasSubstr("before layer 3"), HasSubstr("before layer 5")));
  EXPECT_THROW(convert_move({"--model", path("out"), "--position", "behind", "--output", path("x")}),
               UserError);
  EXPECT_THROW(convert_move({"--model", path("model"), "--position", "after", "--output", path("x")}),
               UserError);
}

TEST_F(ConvertTest, HelpDescribesEveryCommand) {
  for (auto command : {convert_attach, convert_move, convert_inspect, convert_verify})
    EXPECT_THAT(run(command, {"--help"}), AllOf(HasSubstr("usage: ee-convert"), HasSubstr("--help")));
}

TEST_F(ConvertTest, CreatesARandomModelThatCanGetExits) {
  const Args args = {"--config", path("model/config.json"), "--tokenizer", path("model"), "--output",
                     path("new")};
  run(convert_create, args);
  run(convert_attach, {"--model", path("new"), "--output", path("with"), "--exit-layers", "2"});
  const auto folder = checkpoint::ModelFolder::open_backbone(path("new"));
  EXPECT_EQ(folder.config(), checkpoint::ModelFolder::open_backbone(path("model")).config());
  const auto backbone = checkpoint::load_backbone(folder, {});
  EXPECT_NEAR(backbone.layer(1).attention.q.weight.std().item<double>(), 0.02, 0.002);
  EXPECT_LT(backbone.layer(1).mlp.down.weight.std().item<double>(), 0.01);
  EXPECT_FALSE(at::equal(backbone.layer(1).mlp.up.weight, backbone.layer(2).mlp.up.weight));
  EXPECT_TRUE(backbone.final_norm.eq(1).all().item<bool>());
}

TEST_F(ConvertTest, CreateRefusesATokenizerThatIsTooLarge) {
  auto config = nlohmann::json::parse(base::read_text_file(path("model/config.json")));
  config["vocab_size"] = 100;
  config["eos_token_id"] = 2;
  std::ofstream(path("small.json")) << config;
  EXPECT_THAT(
      [&] {
        convert_create(
            {"--config", path("small.json"), "--tokenizer", path("model"), "--output", path("new")});
      },
      ThrowsMessage<UserError>(HasSubstr("vocab_size 100; raise it")));
}

}  // namespace
}  // namespace ee::cli
