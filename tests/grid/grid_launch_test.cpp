// Every way to start several processes, and what is refused before they meet.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grid/grid_fixture.h"

namespace ee {
namespace fs = std::filesystem;
using testing::Each;
using testing::HasSubstr;

namespace {

// A job's number of its own: ports are made from it.
std::string job() { return std::to_string(::getpid()); }

test::Environment slurm_style(int rank, int count, int) {
  return {{"SLURM_PROCID", std::to_string(rank)},
          {"SLURM_NTASKS", std::to_string(count)},
          {"SLURM_LOCALID", std::to_string(rank)},
          {"SLURM_NNODES", "1"},
          {"SLURM_NODEID", "0"},
          {"SLURM_JOB_ID", job()},
          {"SLURM_STEP_ID", "0"}};
}

test::Environment open_mpi_style(int rank, int count, int) {
  return {{"OMPI_COMM_WORLD_RANK", std::to_string(rank)},
          {"OMPI_COMM_WORLD_SIZE", std::to_string(count)},
          {"OMPI_COMM_WORLD_LOCAL_RANK", std::to_string(rank)},
          {"OMPI_COMM_WORLD_LOCAL_SIZE", std::to_string(count)},
          {"PMIX_NAMESPACE", "prterun-" + job()}};
}

size_t count(const std::string& text, const std::string& word) {
  size_t found = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++found;
  return found;
}

}  // namespace

class GridLaunch : public Grid {
 protected:
  // Nobody but one rank speaks, all end as after the user's mistake, and nothing is written.
  void expect_refused(int processes, const nlohmann::json& changes, const char* message) const {
    SCOPED_TRACE(changes.dump());
    configure(changes);
    auto ranks = start_ranks(processes);
    EXPECT_THAT(ranks.wait(), Each(2)) << ranks.output();
    expect_one_error(ranks.output(), message);
  }
  void expect_one_error(const std::string& output, const char* message) const {
    EXPECT_THAT(output, HasSubstr(message));
    EXPECT_EQ(count(output, ": error: "), 1u) << output;
    EXPECT_EQ(count(output, "\n"), 1u) << output;
    expect_nothing_written();
  }
  void expect_run(const std::string& launcher, const std::string& output) const {
    EXPECT_EQ(count(output, "wrote " + (folder_ / "out").string()), 1u) << launcher << ": " << output;
    EXPECT_EQ(count(output, "model     "), 1u) << "the plan is told once";
    EXPECT_EQ(weights(folder_ / "out"), expected_) << launcher;
    for (const char* name : {"out", "out.checkpoints", "out.logs"}) fs::remove_all(folder_ / name);
  }

  std::string expected_;
};

TEST_F(GridLaunch, AllLaunchersGiveTheSameBits) {
  auto changes = grid(1, 2, 1);
  changes["steps"] = 5;
  configure(changes);
  const auto spawned = run({"--spawn=2"});
  ASSERT_EQ(spawned.exit_code, 0) << spawned.output;
  expected_ = weights(folder_ / "out");
  expect_run("--spawn", spawned.output);

  const auto launched =
      test::Process(EE_SOURCE_DIR "/scripts/launch.sh",
                    {"2", EE_BIN_DIR "/ee-tune", "--config", (folder_ / "tune.json").string()},
                    folder_ / "output.log")
          .wait();
  ASSERT_EQ(launched.exit_code, 0) << launched.output;
  expect_run("launch.sh", launched.output);

  const std::map<std::string, LauncherStyle> styles = {
      {"torchrun", test::torchrun_variables}, {"Slurm", slurm_style}, {"Open MPI", open_mpi_style}};
  for (const auto& [launcher, style] : styles) {
    auto ranks = start_ranks(2, {}, style);
    ASSERT_TRUE(ranks.wait_for("wrote ")) << launcher << ": " << ranks.output();
    EXPECT_TRUE(fs::exists(folder_ / "out")) << "told by the last stage, written by the first";
    ASSERT_THAT(ranks.wait(), Each(0)) << launcher << ": " << ranks.output();
    expect_run(launcher, ranks.output());
  }
}

TEST_F(GridLaunch, GridsThatDoNotFitAreRefusedByOneLine) {
  expect_refused(3, grid(2, 1, 0), "are 2 processes, but 3 are running; start 2");
  expect_refused(2, grid(2, 2, 1), "are 4 processes, but 2 are running; start 4");
  expect_refused(3, grid(3, 1, 1), "tensor size 3 does not divide 4 attention heads in 2 groups");
  auto long_pipeline = grid(1, 3, 1);
  long_pipeline["exits"]["train"] = {2};
  expect_refused(3, long_pipeline, "3 stages, but only 2 layers lie before the last trained exit");
  expect_refused(3, grid(1, 1, 0), "3 data-parallel replicas cannot share the 2 micro-batches");
  expect_refused(3, grid(1, 1, 3), "3 replicas cannot share the 2 micro-batches");
  auto odd_sequence = grid(2, 1, 1, {{"sequence", true}});
  odd_sequence["batch"]["sequence_length"] = 31;
  expect_refused(2, odd_sequence, "does not divide batch.sequence_length 31 (parallel.sequence)");
  auto no_gpu = grid(2, 1, 1);
  no_gpu["device"] = "cuda:99";
  expect_refused(2, no_gpu, "device cuda:99");
}

TEST_F(GridLaunch, OtherMistakesAreToldOnceToo) {
  expect_refused(2, {{"model", {{"path", (folder_ / "absent").string()}}}}, "absent");
  write("tune.json", "{");
  auto ranks = start_ranks(2);
  EXPECT_THAT(ranks.wait(), Each(2));
  expect_one_error(ranks.output(), "tune.json");
}

// One rank of a machine reads the files, whichever comes first; the verdict is that of all.
TEST_F(GridLaunch, ADamagedModelIsRefusedByOneLine) {
  const auto file = folder_ / "model" / "exits.safetensors";
  const auto at = static_cast<std::streamoff>(fs::file_size(file)) - 100;
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(at);
  const auto byte = static_cast<char>(stream.get() ^ 1);
  stream.seekp(at).put(byte);
  stream.close();
  expect_refused(2, grid(2, 1, 1), "damaged or altered");
  fs::last_write_time(file, fs::file_time_type::clock::now() - std::chrono::hours(1));  // is remembered
  for (int i = 0; i < 2; ++i) expect_refused(2, grid(2, 1, 1), "damaged or altered");
}

TEST_F(GridLaunch, SpawnRefusesWithOneLine) {
  configure(grid(2, 1, 1));
  const auto finished = run({"--spawn", "3"});
  EXPECT_EQ(finished.exit_code, 2);
  expect_one_error(finished.output, "are 2 processes, but 3 are running");
  const auto none = run({"--spawn", "0"});
  EXPECT_EQ(none.exit_code, 2);
  expect_one_error(none.output, "option --spawn: expected at least 1");
  const auto alone = run();
  EXPECT_EQ(alone.exit_code, 2);
  expect_one_error(alone.output, "ee-tune --spawn N");
  auto ranks = start_ranks(1, {"--spawn", "2"});
  EXPECT_THAT(ranks.wait(), Each(2));
  expect_one_error(ranks.output(), "torchrun has started this process already");
}

// sbatch's script, and a shell by `srun --pty`: one process, whatever the job's number of tasks.
TEST_F(GridLaunch, SlurmsSingleProcessesMaySpawn) {
  test::Environment variables = slurm_style(0, 4, 0);
  variables.erase("SLURM_STEP_ID");
  for (const bool pty : {false, true}) {
    if (pty) {
      variables["SLURM_STEP_ID"] = "0";
      variables["SLURM_STEP_NUM_TASKS"] = "1";
    }
    configure(grid(2, 1, 1));
    const auto start = [&](std::vector<std::string> args) {
      args.insert(args.begin(), {"--config", (folder_ / "tune.json").string()});
      return test::Process(EE_BIN_DIR "/ee-tune", args, folder_ / "output.log", variables).wait();
    };
    const auto alone = start({});
    EXPECT_EQ(alone.exit_code, 2);
    expect_one_error(alone.output, "start 2 (torchrun, srun, ");
    const auto spawned = start({"--spawn", "2", "--set", "steps=2"});
    EXPECT_EQ(spawned.exit_code, 0) << spawned.output;
    EXPECT_EQ(count(spawned.output, "wrote " + (folder_ / "out").string()), 1u) << spawned.output;
    for (const char* name : {"out", "out.checkpoints", "out.logs", "out.cache"})
      fs::remove_all(folder_ / name);
  }
}

TEST_F(GridLaunch, DryRunShowsAGridWithoutItsProcesses) {
  configure(grid(2, 2, 2, {{"shard_optimizer", true}}));
  const auto finished = run({"--dry-run"});
  EXPECT_EQ(finished.exit_code, 0) << finished.output;
  for (const char* text : {"tensor 2 x pipeline 2 x data 2 = 8 processes, shared optimizer state",
                           "stage 0   layers 1-", "stage 1   layers ", "-6, exits 4"})
    EXPECT_THAT(finished.output, HasSubstr(text));
  configure(grid(2, 1, 0));
  EXPECT_THAT(run({"--dry-run", "--spawn", "4"}).output,
              HasSubstr("tensor 2 x pipeline 1 x data 2 = 4 processes"));
  const auto wrong = run({"--dry-run", "--spawn", "3"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.output, HasSubstr("are 2 processes, but 3 are running"));
  for (const char* name : {"out", "out.checkpoints", "out.logs"}) EXPECT_FALSE(fs::exists(folder_ / name));
}

}  // namespace ee
