// What the programs decide about their threads and memory before they compute.
#include <gmock/gmock.h>

#include "programs/tune_fixture.h"

namespace ee {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// What libgomp says it has read: `program --version` with `settings` ("NAME=value") and no others about
// waiting.
std::string openmp_environment(const std::string& program, std::vector<std::string> settings) {
  std::vector<std::string> args;
  for (const char* name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"}) {
    args.insert(args.end(), {"-u", name});
  }
  args.emplace_back("OMP_DISPLAY_ENV=verbose");
  args.insert(args.end(), settings.begin(), settings.end());
  args.insert(args.end(), {EE_BIN_DIR "/" + program, "--version"});
  const auto output = std::filesystem::path(testing::TempDir()) / fmt::format("ee-threads-{}", ::getpid());
  const test::Finished run = test::Process("/usr/bin/env", args, output).wait();
  std::filesystem::remove(output);
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_THAT(run.output, HasSubstr(program + " ")) << "the arguments arrive";
  return run.output;
}

TEST(Threads, ThatWaitSleep) {
  for (const char* program : {"ee-infer", "ee-tune", "ee-convert"}) {
    EXPECT_THAT(openmp_environment(program, {}),
                AllOf(HasSubstr("OMP_WAIT_POLICY = 'PASSIVE'"), HasSubstr("GOMP_SPINCOUNT = '0'")));
  }
}

TEST(Threads, WaitAsTheUserSays) {
  EXPECT_THAT(openmp_environment("ee-infer", {"OMP_WAIT_POLICY=active"}),
              HasSubstr("OMP_WAIT_POLICY = 'ACTIVE'"));
  EXPECT_THAT(openmp_environment("ee-infer", {"GOMP_SPINCOUNT=77"}), HasSubstr("GOMP_SPINCOUNT = '77'"));
  EXPECT_THAT(openmp_environment("ee-infer", {"KMP_BLOCKTIME=5"}), HasSubstr("GOMP_SPINCOUNT = '300000'"))
      << "libgomp's own default";
}

// What getrusage() tells begins with the size of the process that started the program.
TEST_F(Tune, PeakMemoryIsOfTheProgramAlone) {
  const std::vector<char> large(size_t{1} << 30, 'x');
  const auto finished = run({"--set", "steps=5"});
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  size_t peak = 0;
  for (const auto& row : metrics()) peak = std::max(peak, row.value("peak_memory_bytes", size_t{0}));
  EXPECT_GT(peak, size_t{1} << 20);
  EXPECT_LT(peak, large.size() / 4 * 3);
}

}  // namespace
}  // namespace ee
