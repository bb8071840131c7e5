#include "ee/base/program.h"

#include <gtest/gtest.h>

#include <csignal>

#include "ee/base/error.h"
#include "ee/base/hash.h"

namespace ee::base {

TEST(RunProgram, MapsErrorsToExitCodes) {
  EXPECT_EQ(run_program("p", [] { return 7; }), 7);
  EXPECT_EQ(run_program("p", []() -> int { throw UserError("file {} is missing", "x"); }), 2);
  EXPECT_EQ(run_program("p",
                        [] {
                          EE_CHECK(1 == 2, "numbers {}", 1);
                          return 0;
                        }),
            70);
}

TEST(StopSignal, RemembersTheFirstSignal) {
  StopSignal stop;
  EXPECT_FALSE(stop.requested());
  std::raise(SIGTERM);
  EXPECT_TRUE(stop.requested());
  EXPECT_EQ(stop.exit_code(), 143);
}

TEST(StopSignalDeathTest, SecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        StopSignal stop;
        std::raise(SIGINT);
        std::raise(SIGINT);
      },
      ::testing::KilledBySignal(SIGINT), "");
}

// Reference: `printf abc | xxh128sum`.
TEST(Hasher, IsXxh3OfAllPieces) {
  Hasher pieces;
  pieces.update("a");
  pieces.update("bc");
  EXPECT_EQ(pieces.digest(), "06b05ab6733a618578af5f94892f3950");
}

}  // namespace ee::base
