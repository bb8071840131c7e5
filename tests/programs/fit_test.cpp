// Exits that are solved on text, by the programs.
#include "ee/checkpoint/model_folder.h"
#include "programs/tune_fixture.h"

namespace ee {
namespace fs = std::filesystem;
using ::testing::AllOf, ::testing::HasSubstr;

class Fit : public Tune {
 protected:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  test::Finished attach(std::vector<std::string> args, const std::string& output) const {
    args.insert(args.begin(), {"attach", "--model", path("plain"), "--output", path(output)});
    return test::Process(EE_BIN_DIR "/ee-convert", args, folder_ / "attach.log").wait();
  }

  // Of each exit with the final layer, on the text.
  std::vector<double> agreement(const std::string& model) const {
    const auto finished =
        test::Process(EE_BIN_DIR "/ee-infer",
                      {"eval", "--model", path(model), "--data", path("text.txt"), "--sequences", "8",
                       "--sequence-length", "64", "--json", "--threads", "1"},
                      folder_ / "eval.log")
            .wait();
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
    std::vector<double> found;
    const auto line = finished.output.substr(finished.output.find('{'));
    for (const auto& exit : nlohmann::json::parse(line).at("exits")) found.push_back(exit.at("agreement"));
    return found;
  }

  void expect_refusal(const test::Finished& finished, const std::string& text) const {
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_THAT(finished.output, HasSubstr(text));
    for (const char* name : {"out", "out.unfitted", "out.everywhere", "out.logs", "out.checkpoints"})
      EXPECT_FALSE(fs::exists(folder_ / name)) << name;
  }
};

TEST_F(Fit, AttachedExitsAgreeMoreThanCopiedOnes) {
  for (const auto& [name, kind] :
       {std::pair{"mlp", std::vector<std::string>{"--kind", "mlp", "--translator", "full"}},
        std::pair{"linear", std::vector<std::string>{"--kind", "linear"}}}) {
    SCOPED_TRACE(name);
    auto args = kind;
    args.insert(args.end(), {"--exit-layers", "2,4"});
    const std::string copied = std::string("copied-") + name, fitted = std::string("fitted-") + name;
    ASSERT_EQ(attach(args, copied).exit_code, 0);
    args.insert(args.end(), {"--fit", path("text.txt"), "--fit-tokens", "8192"});
    const auto finished = attach(args, fitted);
    ASSERT_EQ(finished.exit_code, 0) << finished.output;
    EXPECT_THAT(finished.output, AllOf(HasSubstr("variance unexplained"), HasSubstr("8192 tokens in")));
    const auto before = agreement(copied), after = agreement(fitted);
    for (size_t i = 0; i < before.size(); ++i) EXPECT_GT(after[i], before[i] + 0.05) << i;
    EXPECT_EQ(checkpoint::ModelFolder::open(folder_ / fitted).exits().exits[0].init, config::InitKind::fit);
    EXPECT_FALSE(fs::exists(folder_ / (fitted + ".unfitted")));
    EXPECT_FALSE(fs::exists(folder_ / (fitted + ".cache")));
  }
}

TEST_F(Fit, TrainingStartsFromIt) {
  ASSERT_EQ(attach({"--kind", "linear", "--exit-layers", "2,4"}, "linear").exit_code, 0);
  const auto first_loss = [&](const std::string& init) {
    write("tune.json", config_with({{"model", {{"path", path("linear")}}},
                                    {"output", path("tuned-" + init)},
                                    {"steps", 2},
                                    {"exits", {{"init", init}, {"fit_tokens", 8192}}}})
                           .dump(2));
    const auto finished = run();
    EXPECT_EQ(finished.exit_code, 0) << finished.output;
    for (const auto& row : read_metrics(folder_ / ("tuned-" + init + ".logs")))
      if (row.contains("evaluation")) return row["evaluation"]["exits"][0]["loss"].get<double>();
    return 0.0;
  };
  EXPECT_LT(first_loss("fit"), first_loss("stored") - 0.2);
}

TEST_F(Fit, LayersAreChosenByWhatTheyBring) {
  const auto finished = attach({"--kind", "linear", "--exit-layers", "auto:2", "--fit", path("text.txt"),
                                "--fit-tokens", "8192", "--plot", path("auto.svg")},
                               "auto");
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_THAT(finished.output, AllOf(HasSubstr("<- chosen"), HasSubstr("layers a token saved")));
  EXPECT_EQ(checkpoint::ModelFolder::open(folder_ / "auto").exits().exits.size(), 2U);
  EXPECT_FALSE(fs::exists(folder_ / "auto.everywhere"));
  EXPECT_THAT(base::read_text_file(folder_ / "auto.svg"), HasSubstr("</svg>"));
}

TEST_F(Fit, PlacingBeginsOnlyWhenAllElseIsRight) {
  write("file", "");
  write("short.txt", "too short");
  const std::vector<std::string> automatic = {"--kind", "linear",         "--exit-layers", "auto:2",
                                              "--fit",  path("text.txt"), "--fit-tokens",  "8192"};
  const auto refuses = [&](std::vector<std::string> more, const std::string& output, const char* words) {
    more.insert(more.begin(), automatic.begin(), automatic.end());
    const auto finished = attach(more, output);
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_THAT(finished.output, AllOf(HasSubstr(words), ::testing::Not(HasSubstr("fitting an exit"))));
    EXPECT_FALSE(fs::exists(folder_ / (output + ".everywhere")));
  };
  refuses({}, "model", "exists already");
  refuses({}, "file/out", "cannot create anything in");
  refuses({"--translator", "none"}, "out", "exit");  // nothing to fit, or no kind
  refuses({"--init", "copy"}, "out", "no exit has init fit");
  refuses({"--init", "fitted"}, "out", "fitted");
  refuses({"--dtype", "bf16"}, "out", "for a GGUF file only");
  refuses({"--temperature", "0"}, "out", "temperature");
  refuses({"--plot", path("absent/a.svg")}, "out", "absent");
  refuses({"--agreement", "95"}, "out", "--agreement");
  refuses({"--fit", path("nothing.txt")}, "out", "nothing.txt");
  refuses({"--fit-precision", "f64"}, "out", "--fit-precision");
  expect_refusal(attach({"--exit-layers", "auto:2", "--kind", "norm", "--fit", path("text.txt")}, "out"),
                 "there is nothing to fit in an exit of kind norm");
  expect_refusal(attach({"--exit-layers", "auto:2", "--fit", path("short.txt")}, "out"), "not enough");
  expect_refusal(attach({"--exit-layers", "2", "--agreement", "0.9"}, "out"), "--agreement says how auto:N");
  expect_refusal(attach({"--exit-layers", "2", "--fit-tokens", "9"}, "out"), "go with --fit DATA");
  EXPECT_EQ(attach({"--exit-layers", "2", "--fit", path("nothing.txt")}, "out").exit_code, 2);
}

TEST_F(Fit, WhatCannotBeDoneIsRefused) {
  expect_refusal(attach({"--exit-layers", "2", "--init", "fit"}, "out"),
                 "give the text to fit it on with --fit DATA");
  expect_refusal(attach({"--exit-layers", "2", "--init", "copy", "--fit", path("text.txt")}, "out"),
                 "--fit is given, but no exit has init fit");
  expect_refusal(attach({"--exit-layers", "2", "--kind", "norm", "--fit", path("text.txt")}, "out"),
                 "there is nothing to fit in an exit of kind norm");
  expect_refusal(attach({"--exit-layers", "2", "--plot", path("a.svg")}, "out"),
                 "--plot draws how auto:N chose");
  expect_refusal(attach({"--exit-layers", "auto:2"}, "out"), "give one with --fit DATA");
  expect_refusal(attach({"--exit-layers", "auto:x", "--fit", path("text.txt")}, "out"), "expected auto:N");
  expect_refusal(attach({"--exit-layers", "auto:9", "--fit", path("text.txt")}, "out"),
                 "9 exits are to be placed");
  write("short.txt", "too short");
  expect_refusal(attach({"--exit-layers", "2", "--kind", "linear", "--fit", path("short.txt")}, "out"),
                 "sequence");
  write("tune.json", config_with({{"exits", {{"init", "fit"}}}}).dump(2));  // the exit at layer 4 is a norm
  expect_refusal(run(), "the exit at layer 4 of kind norm has no linear last step");
  write("tune.json", config_with({{"train", "all"}, {"exits", {{"loss", {{"kl", 1}}}}}}).dump(2));
  expect_refusal(run(), "the final layer teaches only while it is frozen");
}

}  // namespace ee
