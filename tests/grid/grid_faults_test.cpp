// A rank that dies, stalls or is told to stop: what the others do, and what a restart gives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grid/grid_fixture.h"

namespace ee {
namespace fs = std::filesystem;
using testing::ContainsRegex;
using testing::HasSubstr;

namespace {

constexpr int kRanks = 4;
constexpr int kLost = 75;
constexpr int kTimeoutSeconds = 8;

}  // namespace

class GridFaults : public Grid {
 protected:
  static constexpr const char* kLogLine = "/120  loss ";  // of five steps; the middle of the run

  void SetUp() override {
    Grid::SetUp();
    seed_ = std::random_device()();
    random_.seed(seed_);
  }

  // Also runs it without any fault, somewhere else.
  void use_grid(const nlohmann::json& sizes) {
    nlohmann::json changes = {{"steps", 120}, {"data", {{"cache", (folder_ / "cache").string()}}}};
    changes.merge_patch(sizes);
    changes["parallel"]["timeout_seconds"] = kTimeoutSeconds;
    configure(changes);
    const auto output = (folder_ / "reference").string();
    const auto finished = run({"--spawn", "4", "--set", "output=" + output});
    ASSERT_EQ(finished.exit_code, 0) << finished.output;
    expected_ = weights(output);
  }

  // The run, from its last checkpoint, until it is under way.
  RunningRanks resume() const {
    auto ranks = start_ranks(kRanks, {"--resume", "auto"});
    EXPECT_TRUE(ranks.wait_for(kLogLine)) << ranks.output();
    // The line comes before the checkpoint of its step: a restart needs one.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!has_checkpoint() && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(Milliseconds(2));
    EXPECT_TRUE(has_checkpoint()) << ranks.output();
    return ranks;
  }

  bool has_checkpoint() const {
    const fs::path folder = folder_ / "out.checkpoints";
    if (!fs::exists(folder)) return false;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().filename().string().starts_with("step-")) return true;
    return false;
  }

  // Signals a random rank. All others must end in time, and say why.
  void lose_a_rank(int signal, const char* cause) {
    const size_t lost = random_() % kRanks;
    SCOPED_TRACE(fmt::format("rank {} lost, seed {}", lost, seed_));
    auto ranks = resume();
    std::this_thread::sleep_for(std::chrono::microseconds(random_() % 50000));
    ranks[lost].signal(signal);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(kTimeoutSeconds);
    for (size_t rank = 0; rank < kRanks; ++rank) {
      if (rank == lost) continue;
      const auto left = deadline - std::chrono::steady_clock::now();
      ASSERT_TRUE(ranks[rank].ends_within(std::chrono::duration_cast<Milliseconds>(left))) << "rank " << rank;
      const auto finished = ranks[rank].wait();
      EXPECT_EQ(finished.exit_code, kLost) << finished.output;
      EXPECT_THAT(finished.output, ContainsRegex(fmt::format("error: step [0-9]+: .* in group .*on rank {}: "
                                                             "rank {} was lost: {}",
                                                             rank, lost, cause)));
    }
    expect_not_over();
  }

  void expect_restart_gives_the_same_bits() const {
    const auto finished = run({"--spawn", "4", "--resume", "auto"});
    ASSERT_EQ(finished.exit_code, 0) << finished.output;
    EXPECT_THAT(finished.output, HasSubstr("resumed at step"));
    EXPECT_EQ(weights(folder_ / "out"), expected_);
  }

  void expect_not_over() const {
    ASSERT_FALSE(fs::exists(folder_ / "out")) << "the run was over before the signal";
  }

 private:
  std::string expected_;  // weights of the run that nothing happens to
  unsigned seed_ = 0;
  std::mt19937 random_;
};

TEST_F(GridFaults, LostRankEndsAllAndARestartGivesTheSameBits) {
  use_grid(grid(2, 2, 1));
  lose_a_rank(SIGKILL, "its process ended");
  lose_a_rank(SIGSTOP, "no sign of life");
  lose_a_rank(SIGKILL, "its process ended");
  expect_restart_gives_the_same_bits();
}

TEST_F(GridFaults, StopSignalSavesOnAllRanks) {
  use_grid(grid(1, 2, 2, {{"shard_optimizer", true}}));
  // To all ranks, as launchers do; to rank 0, which is enough.
  for (const bool all : {true, false}) {
    auto ranks = resume();
    if (all)
      ranks.signal(SIGTERM);
    else
      ranks[0].signal(SIGTERM);
    EXPECT_THAT(ranks.wait(), testing::Each(143)) << ranks.output();
    EXPECT_THAT(ranks.output(), HasSubstr("stopped by signal 15 after step"));
  }
  auto spawner = start({"--spawn", "4", "--resume", "auto"});
  ASSERT_TRUE(spawner->wait_for(kLogLine));
  spawner->signal(SIGTERM);
  const auto stopped = spawner->wait();
  EXPECT_EQ(stopped.exit_code, 143) << stopped.output;
  const auto step = std::stoi(stopped.output.substr(stopped.output.find("after step ") + 11));
  EXPECT_TRUE(fs::exists(folder_ / fmt::format("out.checkpoints/step-{}", step))) << stopped.output;
  expect_not_over();
  expect_restart_gives_the_same_bits();
}

TEST_F(GridFaults, OutputThatCannotBeWrittenFailsOnAllRanks) {
  configure(grid(1, 2, 1));
  auto ranks = start_ranks(2);
  ASSERT_TRUE(ranks.wait_for("step  5/60")) << ranks.output();
  fs::create_directories(folder_ / "out");
  EXPECT_THAT(ranks.wait(), testing::ElementsAre(2, kLost)) << ranks.output();
  EXPECT_THAT(ranks.output(), testing::Not(HasSubstr("wrote ")));
}

}  // namespace ee
