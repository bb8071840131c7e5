// No program runs on weights that are not those that were written, unless it is told to.
#include <gmock/gmock.h>

#include "ee/checkpoint/model_folder.h"
#include "tune_fixture.h"

namespace ee {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class DamagedModel : public Tune {
 protected:
  void SetUp() override {
    Tune::SetUp();
    const auto file = folder_ / "model" / "exits.safetensors";
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    const auto at = static_cast<std::streamoff>(std::filesystem::file_size(file)) - 100;
    stream.seekg(at);
    const auto byte = static_cast<char>(stream.get() ^ 1);
    stream.seekp(at).put(byte);
  }

  test::Finished program(const std::string& name, std::vector<std::string> args) const {
    return test::Process(EE_BIN_DIR "/" + name, args, folder_ / "output.log").wait();
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  static void expect_refused(const test::Finished& finished) {
    EXPECT_EQ(finished.exit_code, 2) << finished.output;
    EXPECT_THAT(finished.output, AllOf(HasSubstr("exits."), HasSubstr("damaged or altered")));
  }
  static void expect_done(const test::Finished& finished) {
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
  }
};

TEST_F(DamagedModel, IsRefusedByEachProgramAndTakenWithNoVerify) {
  const std::vector<std::string> prompt = {"--model", path("model"),      "--prompt",
                                           "Hello",   "--max-new-tokens", "2"};
  const auto with = [](std::vector<std::string> args, const std::string& option) {
    args.push_back(option);
    return args;
  };
  expect_refused(program("ee-infer", prompt));
  expect_done(program("ee-infer", with(prompt, "--no-verify")));
  const std::vector<std::string> move = {"move",  "--model",  path("model"), "--position",
                                         "after", "--output", path("moved")};
  expect_refused(program("ee-convert", move));
  expect_done(program("ee-convert", with(move, "--no-verify")));
  expect_refused(program("ee-convert", {"verify", path("model")}));
  expect_refused(run());
  expect_done(run({"--dry-run"}));
  expect_done(run({"--no-verify", "--set", "steps=1"}));
  std::filesystem::remove_all(folder_ / "out");
  std::filesystem::remove_all(folder_ / "out.checkpoints");
  expect_done(run({"--set", "model.verify=false", "--set", "steps=1"}));
}

TEST_F(DamagedModel, AnOldFolderIsUsedWithAWarning) {
  const auto file = folder_ / "model" / "ee_config.json";
  auto config = config::read_exits_config(file, 6);
  config.checksums.reset();
  std::ofstream(file) << config::write_exits_config(config);
  const auto finished =
      program("ee-infer", {"--model", path("model"), "--prompt", "Hello", "--max-new-tokens", "2"});
  expect_done(finished);
  EXPECT_THAT(finished.output, HasSubstr("warning: "));
  EXPECT_THAT(finished.output, HasSubstr("ee-convert verify --add-checksums"));
  const auto verified = program("ee-convert", {"verify", path("model")});
  EXPECT_EQ(verified.exit_code, 2);
  EXPECT_THAT(verified.output, HasSubstr("has no checksums"));
  expect_done(program("ee-convert", {"verify", "--add-checksums", path("model")}));
  expect_done(program("ee-convert", {"verify", path("model")}));
}

TEST_F(DamagedModel, WhatARunWritesIsVerified) {
  expect_done(run({"--no-verify", "--set", "steps=1"}));
  EXPECT_EQ(checkpoint::ModelFolder::open(folder_ / "out", checkpoint::Check::always).integrity(),
            checkpoint::Integrity::checked);
  EXPECT_THAT(program("ee-convert", {"inspect", path("out")}).output, HasSubstr("checksums  digest"));
}

}  // namespace
}  // namespace ee
