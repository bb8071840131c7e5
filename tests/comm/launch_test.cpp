#include "ee/comm/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "ee/base/error.h"

namespace ee::comm {
namespace {

using Variables = std::map<std::string, std::string>;

LaunchInfo detect(const Variables& variables) {
  return detect_launch([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

std::string error_of(const Variables& variables) {
  try {
    detect(variables);
  } catch (const base::UserError& error) {
    return error.what();
  }
  return "";
}

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

Variables without(Variables variables, const std::string& name) {
  variables.erase(name);
  return variables;
}

const Variables kTorchrun = {{"RANK", "5"},           {"WORLD_SIZE", "8"},
                             {"LOCAL_RANK", "1"},     {"LOCAL_WORLD_SIZE", "4"},
                             {"MASTER_ADDR", "host"}, {"MASTER_PORT", "1234"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "1"},
                            {"OMPI_COMM_WORLD_SIZE", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
const Variables kSlurm = {
    {"SLURM_PROCID", "5"},       {"SLURM_NTASKS", "7"},  {"SLURM_LOCALID", "1"},
    {"SLURM_NNODES", "3"},       {"SLURM_NODEID", "1"},  {"SLURM_TASKS_PER_NODE", "4,2,1"},
    {"SLURM_JOB_ID", "8123456"}, {"SLURM_STEP_ID", "0"}, {"SLURM_JOB_NODELIST", "gpu[07-08,11]"}};

TEST(DetectLaunch, NothingSetIsOneProcess) {
  for (const auto& variables : {Variables{}, Variables{{"MASTER_ADDR", "x"}, {"SLURM_NTASKS", "4"}}}) {
    const LaunchInfo info = detect(variables);
    EXPECT_EQ(info.launcher, Launcher::kNone);
    EXPECT_EQ(info.rank, 0);
    EXPECT_EQ(info.world_size, 1);
  }
}

TEST(DetectLaunch, ReadsTorchrun) {
  const LaunchInfo info = detect(
      with(kTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "True"}, {"TORCHELASTIC_RESTART_COUNT", "3"}}));
  EXPECT_EQ(info.launcher, Launcher::kTorchrun);
  EXPECT_EQ(info.rank, 5);
  EXPECT_EQ(info.world_size, 8);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.local_world_size, 4);
  EXPECT_EQ(info.master_addr, "host");
  EXPECT_EQ(info.master_port, 1234);
  EXPECT_TRUE(info.agent_store);
  EXPECT_EQ(info.attempt, "3");
  EXPECT_FALSE(detect(kTorchrun).agent_store);
}

TEST(DetectLaunch, NamesEachMissingVariableOfTorchrun) {
  for (const auto& [name, value] : kTorchrun)
    EXPECT_THAT(error_of(without(kTorchrun, name)), ::testing::HasSubstr(name)) << "without " << name;
}

TEST(DetectLaunch, RefusesContradictionsAndNonsense) {
  const std::vector<std::pair<Variables, std::vector<std::string>>> cases = {
      {{{"RANK", "8"}}, {"RANK=8", "WORLD_SIZE=8"}},
      {{{"RANK", "-1"}}, {"RANK=-1"}},
      {{{"RANK", "1x"}}, {"RANK=1x"}},
      {{{"WORLD_SIZE", "0"}}, {"WORLD_SIZE=0"}},
      {{{"LOCAL_RANK", "4"}}, {"LOCAL_RANK=4", "LOCAL_WORLD_SIZE=4"}},
      {{{"LOCAL_WORLD_SIZE", "9"}}, {"LOCAL_WORLD_SIZE", "WORLD_SIZE=8"}},
      {{{"MASTER_PORT", "70000"}}, {"MASTER_PORT=70000"}},
      {{{"MASTER_PORT", "0"}}, {"MASTER_PORT=0"}},
      {{{"MASTER_ADDR", ""}}, {"MASTER_ADDR"}},
  };
  for (const auto& [changed, expected] : cases)
    for (const auto& part : expected)
      EXPECT_THAT(error_of(with(kTorchrun, changed)), ::testing::HasSubstr(part));
}

TEST(DetectLaunch, ReadsOpenMpiOnOneMachine) {
  const LaunchInfo info = detect(with(kOpenMpi, {{"PMIX_NAMESPACE", "prterun-host-42@1"}}));
  EXPECT_EQ(info.launcher, Launcher::kOpenMpi);
  EXPECT_EQ(info.rank, 1);
  EXPECT_EQ(info.local_world_size, 2);
  EXPECT_EQ(info.master_addr, "127.0.0.1");
  EXPECT_GE(info.master_port, 12000);
  EXPECT_LT(info.master_port, 32000);
  EXPECT_EQ(detect(kOpenMpi).master_port, 29500);
}

TEST(DetectLaunch, OpenMpiOnSeveralMachinesNeedsAnAddress) {
  const Variables two = with(kOpenMpi, {{"OMPI_COMM_WORLD_SIZE", "4"}});
  EXPECT_THAT(error_of(two), ::testing::HasSubstr("MASTER_ADDR"));
  const LaunchInfo info = detect(with(two, {{"MASTER_ADDR", "10.0.0.1"}, {"MASTER_PORT", "4321"}}));
  EXPECT_EQ(info.master_addr, "10.0.0.1");
  EXPECT_EQ(info.master_port, 4321);
}

TEST(DetectLaunch, ReadsHydraAndSrunPmi) {
  const Variables pmi = {{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}};
  EXPECT_THAT(error_of(pmi), ::testing::HasSubstr("MPI_LOCALRANKID is not set"));
  const LaunchInfo hydra = detect(with(pmi, {{"MPI_LOCALRANKID", "3"}, {"MPI_LOCALNRANKS", "4"}}));
  EXPECT_EQ(hydra.launcher, Launcher::kPmi);
  EXPECT_EQ(hydra.rank, 3);
  EXPECT_EQ(hydra.local_rank, 3);
  EXPECT_EQ(hydra.master_addr, "127.0.0.1");
  const LaunchInfo srun = detect(with(kSlurm, {{"PMI_RANK", "5"}, {"PMI_SIZE", "7"}}));
  EXPECT_EQ(srun.launcher, Launcher::kPmi);
  EXPECT_EQ(srun.local_world_size, 2);
  EXPECT_EQ(srun.master_addr, "gpu07");
}

TEST(DetectLaunch, ReadsSlurm) {
  const LaunchInfo info = detect(kSlurm);
  EXPECT_EQ(info.launcher, Launcher::kSlurm);
  EXPECT_EQ(info.rank, 5);
  EXPECT_EQ(info.world_size, 7);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.local_world_size, 2);
  EXPECT_EQ(info.master_addr, "gpu07");
  const int port = info.master_port;
  EXPECT_EQ(detect(with(kSlurm, {{"SLURM_PROCID", "0"}})).master_port, port)
      << "every rank finds the same port";
  EXPECT_NE(detect(with(kSlurm, {{"SLURM_STEP_ID", "1"}})).master_port, port)
      << "two steps at once do not collide";
  EXPECT_EQ(detect(with(kSlurm, {{"MASTER_PORT", "7777"}})).master_port, 7777);
}

TEST(DetectLaunch, CountsTheTasksOfTheStepNotOfTheAllocation) {
  EXPECT_EQ(detect(with(kSlurm, {{"SLURM_STEP_NUM_TASKS", "6"}})).world_size, 6);
}

// What Slurm gives to the script of `sbatch --ntasks=4`, and to a shell by `srun --pty`.
const Variables kBatchScript = {{"SLURM_JOB_ID", "77"},
                                {"SLURM_PROCID", "0"},
                                {"SLURM_LOCALID", "0"},
                                {"SLURM_NODEID", "0"},
                                {"SLURM_NTASKS", "4"},
                                {"SLURM_NPROCS", "4"},
                                {"SLURM_NNODES", "2"},
                                {"SLURM_TASK_PID", "9"},
                                {"SLURM_JOB_NODELIST", "n[1-2]"},
                                {"SLURM_TASKS_PER_NODE", "2(x2)"}};
const Variables kPty = with(kBatchScript, {{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}});

TEST(DetectLaunch, BatchScriptsAndInteractiveShellsAreOneProcess) {
  for (const auto& variables :
       {kBatchScript, kPty, with(kBatchScript, {{"SLURM_STEP_ID", "4294967291"}}),  // batch
        with(kBatchScript, {{"SLURM_STEP_ID", "4294967290"}}),                      // interactive
        with(kPty, {{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}}),
        with(kBatchScript, {{"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}}),
        Variables{{"WORLD_SIZE", "1"}}, Variables{{"PMI_SIZE", "1"}}}) {
    const LaunchInfo info = detect(variables);
    EXPECT_EQ(info.launcher, Launcher::kNone);
    EXPECT_EQ(info.rank, 0);
    EXPECT_EQ(info.world_size, 1);
  }
}

TEST(DetectLaunch, WhatIsStartedInABatchScriptOrAShellIsARank) {
  for (const auto& around : {kBatchScript, kPty}) {
    const LaunchInfo info = detect(with(around, kTorchrun));  // as --spawn sets them, too
    EXPECT_EQ(info.launcher, Launcher::kTorchrun);
    EXPECT_EQ(info.rank, 5);
  }
}

TEST(DetectLaunch, LeftoversOfSingleProcessesDoNotHideALauncher) {
  const Variables leftovers = {
      {"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}, {"PMI_SIZE", "1"}};
  const LaunchInfo info = detect(with(kSlurm, leftovers));
  EXPECT_EQ(info.launcher, Launcher::kSlurm);
  EXPECT_EQ(info.rank, 5);
  EXPECT_EQ(detect(with(kTorchrun, leftovers)).launcher, Launcher::kTorchrun);
}

TEST(DetectLaunch, HalfSetsNameWhatIsMissing) {
  const auto expect_missing = [](const Variables& variables, const char* name) {
    EXPECT_THAT(error_of(variables), ::testing::HasSubstr(std::string(name) + " is not set")) << name;
  };
  expect_missing({{"WORLD_SIZE", "4"}}, "RANK");
  expect_missing(with(kBatchScript, {{"WORLD_SIZE", "4"}}), "RANK");
  expect_missing({{"RANK", "0"}}, "WORLD_SIZE");
  expect_missing({{"OMPI_COMM_WORLD_RANK", "0"}}, "OMPI_COMM_WORLD_SIZE");
  expect_missing({{"OMPI_COMM_WORLD_SIZE", "2"}}, "OMPI_COMM_WORLD_RANK");
  expect_missing({{"PMI_RANK", "1"}}, "PMI_SIZE");
  expect_missing(without(kSlurm, "SLURM_PROCID"), "SLURM_PROCID");
  expect_missing(without(kSlurm, "SLURM_LOCALID"), "SLURM_LOCALID");
  // mpirun from a batch script, whose SLURM_LOCALID is the script's own.
  expect_missing(with(kBatchScript, {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}), "MPI_LOCALRANKID");
}

TEST(DetectLaunch, AnExportedWorldSizeGoesWithSlurmsRanks) {
  EXPECT_EQ(detect(with(kSlurm, {{"WORLD_SIZE", "7"}, {"MASTER_ADDR", "gpu07"}})).launcher, Launcher::kSlurm);
  EXPECT_THAT(error_of(with(kSlurm, {{"WORLD_SIZE", "8"}})),
              ::testing::AllOf(::testing::HasSubstr("WORLD_SIZE=8"), ::testing::HasSubstr("of 7 processes")));
}

TEST(DetectLaunch, ContradictionsAreRefused) {
  const Variables alone = {{"RANK", "0"}, {"WORLD_SIZE", "1"}};
  EXPECT_THAT(error_of(with(kSlurm, alone)), ::testing::HasSubstr("SLURM_PROCID=5 of 7 processes"));
  EXPECT_EQ(detect(with(kSlurm, with(alone, {{"TORCHELASTIC_RUN_ID", "x"}}))).world_size, 1)
      << "each task has a torchrun of its own";
  EXPECT_THAT(error_of(with(kSlurm, with(kTorchrun, {{"RANK", "0"}, {"WORLD_SIZE", "7"}}))),
              ::testing::HasSubstr("RANK=0 and WORLD_SIZE=7 contradict Slurm"));
  EXPECT_EQ(detect(with(kSlurm, with(kTorchrun, {{"WORLD_SIZE", "7"}}))).launcher, Launcher::kTorchrun);
}

TEST(DetectLaunch, KubernetesOperatorsGiveEachMachineOneProcess) {
  const Variables kubernetes = without(without(kTorchrun, "LOCAL_RANK"), "LOCAL_WORLD_SIZE");
  const LaunchInfo info = detect(kubernetes);
  EXPECT_EQ(info.rank, 5);
  EXPECT_EQ(info.local_rank, 0);
  EXPECT_EQ(info.local_world_size, 1);
  EXPECT_TRUE(info.local_assumed);
  EXPECT_FALSE(detect(with(kubernetes, {{"LOCAL_WORLD_SIZE", "1"}})).local_assumed);
  EXPECT_FALSE(detect(kTorchrun).local_assumed);
}

TEST(DetectLaunch, BracketsAroundAnAddressFall) {
  EXPECT_EQ(detect(with(kTorchrun, {{"MASTER_ADDR", "[fd00::7]"}})).master_addr, "fd00::7");
  EXPECT_EQ(detect(with(kTorchrun, {{"MASTER_ADDR", "::1"}})).master_addr, "::1");
}

TEST(DetectLaunch, TheInnermostLauncherDecides) {
  const LaunchInfo info = detect(with(with(kSlurm, kOpenMpi), kTorchrun));
  EXPECT_EQ(info.launcher, Launcher::kTorchrun);
  EXPECT_EQ(info.rank, 5);
  EXPECT_EQ(detect(with(kSlurm, kOpenMpi)).launcher, Launcher::kOpenMpi);
}

TEST(SlurmHosts, FirstOfACompressedList) {
  EXPECT_EQ(first_slurm_host("login"), "login");
  EXPECT_EQ(first_slurm_host("a,b"), "a");
  EXPECT_EQ(first_slurm_host("node[07-09,12],gpu1"), "node07");
  EXPECT_EQ(first_slurm_host("r[2,4]n[10-12].x"), "r2n10.x");
  EXPECT_EQ(first_slurm_host("node[07"), "");
  EXPECT_EQ(first_slurm_host(""), "");
}

TEST(SlurmTasks, OnOneNodeOfACompressedList) {
  EXPECT_EQ(slurm_tasks_on_node("4(x2),3", 0), 4);
  EXPECT_EQ(slurm_tasks_on_node("4(x2),3", 1), 4);
  EXPECT_EQ(slurm_tasks_on_node("4(x2),3", 2), 3);
  for (const char* bad : {"4(x2),3", "", "x", "4(x", "0(x9)", "4(x2"})
    EXPECT_EQ(slurm_tasks_on_node(bad, 3), std::nullopt) << bad;
}

}  // namespace
}  // namespace ee::comm
