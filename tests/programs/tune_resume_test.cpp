#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "programs/tune_fixture.h"

namespace ee {
namespace fs = std::filesystem;
using testing::HasSubstr;

class TuneResume : public Tune {
 protected:
  fs::path newest_checkpoint() const {
    fs::path newest;
    int step = -1;
    for (const auto& entry : fs::directory_iterator(folder_ / "out.checkpoints")) {
      const auto name = entry.path().filename().string();
      if (name.starts_with("step-") && std::stoi(name.substr(5)) > step)
        step = std::stoi(name.substr(5)), newest = entry.path();
    }
    return newest;
  }
  void stop_after(const std::string& line, int signal, int exit_code) const {
    auto process = start({"--resume", "auto"});
    ASSERT_TRUE(process->wait_for(line)) << process->output();
    process->signal(signal);
    EXPECT_EQ(process->wait().exit_code, exit_code);
    ASSERT_FALSE(fs::exists(folder_ / "out")) << "the run was over before the signal";
  }
};

TEST_F(TuneResume, KilledAtRandomMomentsGivesTheSameBits) {
  const auto expected = uninterrupted_weights();
  const auto seed = std::random_device()();
  std::mt19937 random(seed);
  SCOPED_TRACE(fmt::format("seed {}", seed));
  int kills = 0;
  for (int attempt = 0; !fs::exists(folder_ / "out"); ++attempt) {
    ASSERT_LT(attempt, 50);
    auto process = start({"--resume", "auto"});
    if (kills < 5) {
      process->wait_for(kills == 0 ? "step  5/60" : "resumed at");
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 60000));
      process->signal(SIGKILL);
    }
    const auto finished = process->wait();
    ASSERT_THAT(finished.exit_code, testing::AnyOf(0, 128 + SIGKILL)) << finished.output;
    kills += finished.exit_code != 0;
  }
  EXPECT_GE(kills, 1);
  EXPECT_EQ(weights(folder_ / "out"), expected);
}

TEST_F(TuneResume, StopSignalsSaveAndEndWithTheShellsExitCode) {
  const auto expected = uninterrupted_weights();
  stop_after("step  5/60", SIGTERM, 143);
  stop_after("resumed at", SIGINT, 130);
  const auto finished = run({"--resume", "auto"});
  EXPECT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_EQ(weights(folder_ / "out"), expected);
}

TEST_F(TuneResume, BrokenNewestCheckpointIsPassedOver) {
  const auto expected = uninterrupted_weights();
  stop_after("step 15/60", SIGKILL, 137);
  const auto broken = newest_checkpoint();
  std::fstream(broken / "exits.safetensors", std::ios::in | std::ios::out | std::ios::binary)
      .seekp(-1, std::ios::end)
      .put('x');
  const auto finished = run({"--resume", "auto"});
  EXPECT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_THAT(finished.output, HasSubstr(broken.filename().string()));
  EXPECT_EQ(weights(folder_ / "out"), expected);
}

TEST_F(TuneResume, NamedCheckpointIsUsed) {
  stop_after("step 15/60", SIGTERM, 143);
  const auto finished = run({"--resume", newest_checkpoint().string()});
  EXPECT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_THAT(finished.output, HasSubstr("resumed at step"));
}

TEST_F(TuneResume, OldCheckpointsAreNotOverwrittenByANewRun) {
  stop_after("step  5/60", SIGTERM, 143);
  const auto finished = run();
  EXPECT_EQ(finished.exit_code, 2);
  EXPECT_THAT(finished.output, HasSubstr("continue it with --resume auto"));
}

TEST_F(TuneResume, OtherOptionsTextOrModelAreRefused) {
  stop_after("step  5/60", SIGTERM, 143);
  const auto refuses = [&](std::vector<std::string> args, const char* message) {
    args.insert(args.begin(), {"--resume", "auto"});
    const auto finished = run(args);
    EXPECT_EQ(finished.exit_code, 2) << finished.output;
    EXPECT_THAT(finished.output, HasSubstr(message));
  };
  refuses({"--set", "optimizer.lr=0.5", "--set", "seed=7"},
          "optimizer.lr (0.01 there, 0.5 now), seed (1234 there, 7 now)");
  write("text.txt", sample_text() + "more");
  refuses({}, "belongs to other training text");
  write("text.txt", sample_text());
  fs::remove_all(folder_ / "plain");
  fs::remove_all(folder_ / "model");
  test::write_tiny_model(folder_ / "plain", /*seed=*/2);
  checkpoint::attach_exits(
      {.source = folder_ / "plain",
       .output = folder_ / "model",
       .exits = {{.layer = 2}, {.layer = 4, .kind = config::ExitKind::norm, .head = config::HeadKind::own}},
       .dtype = {}});
  refuses({}, "belongs to another model");
}

TEST_F(TuneResume, KeepsTheNewestAndTheBestCheckpoints) {
  const auto finished = run();
  ASSERT_EQ(finished.exit_code, 0) << finished.output;
  EXPECT_EQ(newest_checkpoint().filename(), "step-60");
  const auto count =
      std::distance(fs::directory_iterator(folder_ / "out.checkpoints"), fs::directory_iterator());
  EXPECT_THAT(count, testing::AllOf(testing::Ge(2), testing::Le(3)));
}

}  // namespace ee
