// The comm room between real processes: ee_comm_worker (comm_worker_main.cpp) holds what each rank does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "ee/base/file.h"
#include "ee/base/temporary_failure.h"
#include "ee/comm/spawn.h"

namespace ee::comm {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

constexpr int kLost = base::kExitTemporaryFailure;

class Comm : public ::testing::Test {
 protected:
  Comm() : folder_(fs::path(::testing::TempDir()) / ("ee-comm-" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Comm() override { fs::remove_all(folder_); }

  int run(int ranks, const std::string& scenario, const std::vector<std::string>& parameters = {},
          milliseconds grace = milliseconds(1500)) {
    std::vector<std::string> command = {EE_BUILD_DIR "/tests/ee_comm_worker", scenario, folder_.string()};
    command.insert(command.end(), parameters.begin(), parameters.end());
    return spawn_local(ranks, command, {.grace = grace});
  }

  // What the CommError of a rank said; empty if it had none.
  std::string message(int rank) const {
    const fs::path path = folder_ / ("rank-" + std::to_string(rank));
    return fs::exists(path) ? base::read_text_file(path) : "";
  }

  // Seconds from a rank's last sign (it writes its file before it dies) to the error of another. Starting up
  // is not in it: that takes as long as the machine is busy.
  double seconds_until_error(int lost, int rank) const {
    const auto begin = fs::last_write_time(folder_ / ("lost-" + std::to_string(lost)));
    const auto end = fs::last_write_time(folder_ / ("rank-" + std::to_string(rank)));
    return std::chrono::duration<double>(end - begin).count();
  }

  pid_t pid(int rank) const {
    const fs::path path = folder_ / ("pid-" + std::to_string(rank));
    while (!fs::exists(path) || base::read_text_file(path).empty())
      std::this_thread::sleep_for(milliseconds(10));
    return std::stoi(base::read_text_file(path));
  }

  const fs::path folder_;
};

TEST_F(Comm, CollectivesAndMessagesEqualNaiveOnes) {
  for (const int ranks : {1, 2, 3, 4}) EXPECT_EQ(run(ranks, "collectives"), 0) << ranks << " ranks";
}

TEST_F(Comm, StrictModeLetsCorrectProgramsPass) {
  EXPECT_EQ(run(2, "collectives", {"strict=1"}), 0);
  EXPECT_EQ(run(4, "collectives", {"strict=1"}), 0);
}

TEST_F(Comm, Bf16SumsAreRoundedOnce) {
  EXPECT_EQ(run(2, "bf16_sums"), 0);
  EXPECT_EQ(run(4, "bf16_sums"), 0);
}

TEST_F(Comm, FloatSumsAreTheSameBitsOnAllRanks) {
  EXPECT_EQ(run(2, "float_sums"), 0);
  EXPECT_EQ(run(3, "float_sums"), 0);
}

TEST_F(Comm, RanksMayLeaveInAnyOrder) { EXPECT_EQ(run(3, "leave_in_turns"), 0); }

// Strict mode ------------------------------------------------------------

TEST_F(Comm, StrictModeShowsBothShapes) {
  EXPECT_EQ(run(3, "wrong_shape", {"strict=1", "wrong=1"}), kLost);
  for (const int rank : {0, 1, 2})
    EXPECT_THAT(message(rank),
                AllOf(HasSubstr("all_reduce(sum) of float32 [4]"), HasSubstr("float32 [5]"),
                      HasSubstr("group all (ranks 0, 1, 2), on rank " + std::to_string(rank))));
}

TEST_F(Comm, StrictModeShowsBothOrders) {
  EXPECT_EQ(run(2, "wrong_order", {"strict=1", "wrong=1"}), kLost);
  for (const int rank : {0, 1})
    EXPECT_THAT(message(rank),
                AllOf(HasSubstr("rank 0: all_reduce(sum)"), HasSubstr("rank 1: broadcast(root 0)")));
}

TEST_F(Comm, StrictModeRefusesTagsOutOfOrder) {
  EXPECT_EQ(run(2, "wrong_tag"), 0) << "Gloo matches by tag";
  EXPECT_EQ(run(2, "wrong_tag", {"strict=1"}), kLost);
  EXPECT_THAT(message(0), AllOf(HasSubstr("to rank 1 (tag 1)"), HasSubstr("from rank 0 (tag 2)")));
}

TEST_F(Comm, StrictModeRefusesTwoSendsThatOnlyGlooLetsPass) {
  EXPECT_EQ(run(2, "both_send_first"), 0) << "Gloo buffers";
  EXPECT_EQ(run(2, "both_send_first", {"strict=1"}), kLost);
  for (const int rank : {0, 1}) EXPECT_THAT(message(rank), HasSubstr("NCCL never ends"));
}

TEST_F(Comm, CircleOfSendsTimesOutNamingAll) {
  EXPECT_EQ(run(3, "circle_of_sends", {"strict=1", "operation=1500"}), kLost);
  for (const int rank : {0, 1, 2})
    EXPECT_THAT(message(rank), AllOf(HasSubstr("timed out after 1.5 s"),
                                     HasSubstr("rank 0: step 4: send of float32 [4] to rank 1"),
                                     HasSubstr("rank 1: step 4: send of float32 [4] to rank 2"),
                                     HasSubstr("rank 2: step 4: send of float32 [4] to rank 0")));
}

// Losses ------------------------------------------------------------

class Losing : public Comm, public ::testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Rank, Losing, ::testing::Values(0, 1, 2));

TEST_P(Losing, KilledRankIsNamedAtOnceByAllOthers) {
  const int lost = GetParam();
  EXPECT_EQ(run(3, "endless", {"die=" + std::to_string(lost), "signal=9", "at=20"}), 128 + SIGKILL);
  for (const int rank : {0, 1, 2}) {
    if (rank == lost) continue;
    EXPECT_LT(seconds_until_error(lost, rank), 4)
        << "peer_timeout is 20 s; a closed connection needs no waiting";
    EXPECT_THAT(message(rank),
                AllOf(HasSubstr("rank " + std::to_string(lost) + " was lost: its process ended"),
                      AnyOf(HasSubstr("step 19: "), HasSubstr("step 20: ")),
                      HasSubstr("in group all (ranks 0, 1, 2)"), HasSubstr("float32 [1000]")));
  }
}

TEST_P(Losing, StoppedRankIsNamedWithinTheTimeout) {
  const int lost = GetParam();
  EXPECT_EQ(
      run(3, "endless", {"die=" + std::to_string(lost), "signal=19", "at=5", "peer=4000"}, milliseconds(500)),
      kLost);
  for (const int rank : {0, 1, 2}) {
    if (rank == lost) continue;
    EXPECT_LT(seconds_until_error(lost, rank), 4) << "peer_timeout";
    EXPECT_THAT(message(rank), AllOf(HasSubstr("rank " + std::to_string(lost) + " was lost: no sign of life"),
                                     AnyOf(HasSubstr("step 4: "), HasSubstr("step 5: "))));
  }
}

TEST_F(Comm, KilledAtAnyTimeTheOthersEnd) {
  for (const int delay : {0, 30, 170, 400}) {
    std::thread killer([&] {
      const pid_t victim = pid(1);
      std::this_thread::sleep_for(milliseconds(delay));
      ::kill(victim, SIGKILL);
    });
    EXPECT_EQ(run(3, "endless", {"strict=1"}), 128 + SIGKILL);
    killer.join();
    for (const int rank : {0, 2}) EXPECT_THAT(message(rank), HasSubstr("rank 1 was lost")) << delay << " ms";
    for (const auto& file : fs::directory_iterator(folder_)) fs::remove(file);
  }
}

TEST_F(Comm, RankThatComputesEndsToo) {
  const auto start = Clock::now();
  EXPECT_EQ(run(3, "lost_while_computing", {"die=2", "peer=4000"}, std::chrono::seconds(50)), 128 + SIGKILL);
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(30))
      << "they compute for 60 s, and spawn_local waits for 50";
}

TEST_F(Comm, ErrorOfOneRankEndsAll) {
  EXPECT_EQ(run(3, "endless", {"die=1", "at=3"}), 2) << "the exit code of the rank that began";
  for (const int rank : {0, 2})
    EXPECT_THAT(message(rank), HasSubstr("rank 1 failed: it ended with an error"));
}

TEST_F(Comm, RankThatLeavesEarlyIsNamed) {
  EXPECT_EQ(run(3, "leaves_early", {"leave=1", "peer=4000"}), kLost);
  EXPECT_THAT(message(0) + message(2), HasSubstr("rank 1 has left the run"));
  EXPECT_EQ(run(2, "leaves_early", {"leave=0", "peer=4000"}), kLost) << "rank 0 waits in the background";
  EXPECT_THAT(message(1), HasSubstr("rank 0 has left the run"));
}

TEST_F(Comm, MissingRanksAreNamed) {
  // Of three ranks that the variables promise, rank 1 never comes.
  const std::string command = "[ $RANK = 1 ] && { sleep 2; exit 0; }; exec " EE_BUILD_DIR
                              "/tests/ee_comm_worker collectives " +
                              folder_.string() + " rendezvous=1000";
  EXPECT_EQ(spawn_local(3, {"sh", "-c", command}, {.grace = milliseconds(5000)}), kLost);
  EXPECT_THAT(message(0), HasSubstr("of 3 ranks these did not come: 1"));
}

// spawn_local ------------------------------------------------------------

int spawn_shell(int ranks, const std::string& script, milliseconds grace = milliseconds(300)) {
  return spawn_local(ranks, {"sh", "-c", script}, {.grace = grace});
}

TEST(Spawn, ReturnsTheFirstFailure) {
  EXPECT_EQ(spawn_shell(3, "exit 0"), 0);
  EXPECT_EQ(spawn_shell(3, "exit 2"), 2);
  EXPECT_EQ(spawn_shell(3, "[ $RANK = 1 ] && exit 7; sleep 0.2; exit 0"), 7);
  EXPECT_EQ(spawn_shell(3, "[ $RANK = 2 ] && kill -9 $$; sleep 0.2; exit 75"), 128 + SIGKILL);
  EXPECT_EQ(spawn_shell(2, "[ $RANK = 0 ] && exit 75; sleep 0.1; exit 3"), 3) << "75 is another rank's doing";
}

TEST(Spawn, SetsTorchrunsVariables) {
  EXPECT_EQ(spawn_shell(3,
                        "[ $WORLD_SIZE = 3 ] && [ $LOCAL_WORLD_SIZE = 3 ] && [ $RANK = $LOCAL_RANK ] && "
                        "[ $MASTER_ADDR = 127.0.0.1 ] && [ $MASTER_PORT -gt 0 ]"),
            0);
}

TEST(Spawn, EndsTheOthersAfterTheGraceTime) {
  const auto start = Clock::now();
  EXPECT_EQ(spawn_shell(3, "[ $RANK = 1 ] && exit 4; trap '' TERM; sleep 20 & wait; sleep 20"), 4);
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(5));
}

TEST(Spawn, CommandThatCannotBeStartedIsTheUsersError) {
  EXPECT_THROW(spawn_local(2, {"/no/such/program"}), base::UserError);
  EXPECT_THROW(spawn_local(2, {}), base::UserError);
  EXPECT_THROW(spawn_local(0, {"true"}), base::UserError);
}

TEST(Spawn, PassesSignalsOnAndWaits) {
  const std::string flag =
      (fs::path(::testing::TempDir()) / ("ee-spawn-" + std::to_string(::getpid()))).string();
  const pid_t spawner = ::fork();
  if (spawner == 0)
    ::_exit(spawn_shell(2,
                        "trap 'sleep 0.6; echo x >> " + flag + "; exit 143' TERM; : > " + flag +
                            ".$RANK; while :; do sleep 0.05; done",
                        milliseconds(200)));
  while (!fs::exists(flag + ".0") || !fs::exists(flag + ".1")) std::this_thread::sleep_for(milliseconds(10));
  ::kill(spawner, SIGTERM);
  int status = 0;
  ::waitpid(spawner, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 143);
  EXPECT_EQ(base::read_text_file(flag), "x\nx\n") << "both ranks could finish what they did on SIGTERM";
  for (const char* end : {"", ".0", ".1"}) fs::remove(flag + end);
}

TEST(Spawn, RanksDoNotOutliveAKilledSpawner) {
  const std::string flag =
      (fs::path(::testing::TempDir()) / ("ee-orphan-" + std::to_string(::getpid()))).string();
  const pid_t spawner = ::fork();
  if (spawner == 0) ::_exit(spawn_shell(1, "echo $$ > " + flag + "; exec sleep 30"));
  while (!fs::exists(flag) || base::read_text_file(flag).empty())
    std::this_thread::sleep_for(milliseconds(10));
  const pid_t rank = std::stoi(base::read_text_file(flag));
  EXPECT_EQ(::kill(rank, 0), 0);
  ::kill(spawner, SIGKILL);
  ::waitpid(spawner, nullptr, 0);
  const auto ended = [&] {  // gone, or a zombie that its new parent has yet to reap
    const fs::path stat = "/proc/" + std::to_string(rank) + "/stat";
    return !fs::exists(stat) || base::read_text_file(stat).find(") Z ") != std::string::npos;
  };
  for (int i = 0; i < 200 && !ended(); ++i) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_TRUE(ended());
  fs::remove(flag);
}

}  // namespace
}  // namespace ee::comm
