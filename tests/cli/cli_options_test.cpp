#include "cli_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ee/base/error.h"

namespace ee::cli {
namespace {

using Args = std::vector<std::string>;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

struct Example {
  std::string model, folder;
  int64_t tokens = 64;
  double threshold = 1.0;
  std::optional<double> seed;
  std::vector<std::string> set;
  bool json = false;

  bool parse(const Args& args) {
    CommandLine line("demo DIR [options]", "An example.");
    line.positional("DIR", folder, "a folder")
        .value("model", "DIR", model, "the model")
        .value("tokens", "N", tokens, "how many")
        .value("threshold", "P", threshold, "confidence")
        .value("seed", "N", seed, "of sampling")
        .values("set", "K=V", set, "override")
        .flag("json", json, "print JSON")
        .required("model");
    return line.parse(args);
  }
};

#define EXPECT_USER_ERROR(args, matcher) \
  EXPECT_THAT([] { Example().parse(args); }, ThrowsMessage<base::UserError>(matcher))

TEST(CommandLine, FillsTargetsAndKeepsDefaults) {
  Example e;
  ASSERT_TRUE(e.parse({"out", "--model", "m", "--threshold=-0.5", "--set", "a=1", "--set=b.c=2", "--json"}));
  EXPECT_EQ(e.folder, "out");
  EXPECT_EQ(e.model, "m");
  EXPECT_EQ(e.threshold, -0.5);
  EXPECT_EQ(e.tokens, 64);
  EXPECT_FALSE(e.seed.has_value());
  EXPECT_EQ(e.set, (Args{"a=1", "b.c=2"}));
  EXPECT_TRUE(e.json);
}

TEST(CommandLine, TakesANegativeNumberAndDashAsValues) {
  Example e;
  ASSERT_TRUE(e.parse({"--threshold", "-2", "--model", "-", "out"}));
  EXPECT_EQ(e.threshold, -2);
  EXPECT_EQ(e.model, "-");
}

TEST(CommandLine, NamesAllUnknownOptionsAndTheNearest) {
  EXPECT_USER_ERROR((Args{"out", "--modle", "m", "--treshold=1", "--qqqqqq"}),
                    AllOf(HasSubstr("--modle (did you mean --model?)"),
                          HasSubstr("--treshold (did you mean --threshold?)"), HasSubstr("--qqqqqq\n")));
}

TEST(CommandLine, DoesNotGuessAbbreviations) {
  EXPECT_USER_ERROR((Args{"out", "--mod", "m"}), HasSubstr("unknown option --mod "));
}

TEST(CommandLine, RejectsMistypedRepeatedMissingAndSuperfluous) {
  EXPECT_USER_ERROR((Args{"out", "--model", "m", "--tokens", "6x"}), HasSubstr("--tokens: expected a whole"));
  EXPECT_USER_ERROR((Args{"out", "--model", "m", "--tokens", "1.5"}), HasSubstr("got '1.5'"));
  EXPECT_USER_ERROR((Args{"out", "--model", "m", "--model", "n"}), HasSubstr("--model is given twice"));
  EXPECT_USER_ERROR((Args{"--json"}), AllOf(HasSubstr("missing DIR, --model DIR"), HasSubstr("usage: demo")));
  EXPECT_USER_ERROR((Args{"out", "extra", "--model", "m"}), HasSubstr("unexpected argument 'extra'"));
  EXPECT_USER_ERROR((Args{"out", "--model"}), HasSubstr("--model"));
  EXPECT_USER_ERROR((Args{"out", "--model", "m", "--json=1"}), HasSubstr("json"));
}

TEST(CommandLine, HelpShowsDefaultsAndStops) {
  ::testing::internal::CaptureStdout();
  EXPECT_FALSE(Example().parse({"--help"}));
  EXPECT_THAT(::testing::internal::GetCapturedStdout(),
              AllOf(HasSubstr("usage: demo DIR"), HasSubstr("--tokens N"), HasSubstr("(default: 64)"),
                    HasSubstr("(required)")));
}

Program example_program(std::string& ran) {
  return {"prog",
          "Does things.",
          {{"attach", "first", [&](const Args& a) { return ran = "attach " + a.at(0), 3; }},
           {"verify", "second", [&](const Args&) { return ran = "verify", 0; }}}};
}

int run(const Program& program, std::vector<const char*> args) {
  args.insert(args.begin(), "prog");
  return run_commands(program, static_cast<int>(args.size()), args.data());
}

TEST(RunCommands, DispatchesAndReturnsTheCommandsCode) {
  std::string ran;
  EXPECT_EQ(run(example_program(ran), {"attach", "--x"}), 3);
  EXPECT_EQ(ran, "attach --x");
}

TEST(RunCommands, BadUsageEndsWithTwo) {
  std::string ran;
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(run(example_program(ran), {"atach"}), base::kExitUserError);
  EXPECT_EQ(run(example_program(ran), {}), base::kExitUserError);
  EXPECT_EQ(run(example_program(ran), {"--model"}), base::kExitUserError);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("did you mean attach?"));
  EXPECT_EQ(ran, "");
}

TEST(RunCommands, UnnamedCommandTakesOptions) {
  std::string ran;
  Program program = example_program(ran);
  program.commands.push_back({"", "default", [&](const Args& a) { return ran = "unnamed " + a.at(0), 0; }});
  EXPECT_EQ(run(program, {"--model"}), 0);
  EXPECT_EQ(ran, "unnamed --model");
  EXPECT_EQ(run(program, {"verify"}), 0);
  EXPECT_EQ(ran, "verify");
}

TEST(RunCommands, AnswersVersionAndHelp) {
  std::string ran;
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(run(example_program(ran), {"--version"}), 0);
  EXPECT_EQ(run(example_program(ran), {"--help"}), 0);
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), AllOf(HasSubstr("prog 0."), HasSubstr("prog attach"),
                                                              HasSubstr("second"), Not(HasSubstr("error"))));
}

}  // namespace
}  // namespace ee::cli
