// ee-tune as several processes: on the tiny model of Tune, with strict communication.
#pragma once

#include <cstdlib>
#include <map>

#include "ee/comm/spawn.h"
#include "programs/tune_fixture.h"

namespace ee {

using Milliseconds = std::chrono::milliseconds;

// The processes of one run, each with its own output.
class RunningRanks {
 public:
  using Processes = std::vector<std::unique_ptr<test::Process>>;
  explicit RunningRanks(Processes processes) : processes_(std::move(processes)) {}

  test::Process& operator[](size_t rank) const { return *processes_.at(rank); }
  size_t size() const { return processes_.size(); }

  std::string output() const {
    std::string text;
    for (const auto& process : processes_) text += process->output();
    return text;
  }
  // Until any output contains `text`; false when a process has ended before.
  bool wait_for(const std::string& text) const {
    while (output().find(text) == std::string::npos)
      for (const auto& process : processes_)
        if (process->ends_within(Milliseconds(1))) return output().find(text) != std::string::npos;
    return true;
  }
  void signal(int number) const {
    for (const auto& process : processes_) process->signal(number);
  }
  std::vector<int> wait() {
    std::vector<int> codes;
    for (const auto& process : processes_) codes.push_back(process->wait().exit_code);
    return codes;
  }

 private:
  Processes processes_;
};

// A launcher's variables for a rank, all ranks on this machine.
using LauncherStyle = test::Environment (*)(int rank, int count, int port);

class Grid : public Tune {
 protected:
  void SetUp() override {
    Tune::SetUp();
    ::setenv("EE_COMM_STRICT", "1", 1);
  }

  // {"parallel": {...}} for config_with().
  static nlohmann::json grid(int tensor, int pipeline, int data, const nlohmann::json& more = {}) {
    nlohmann::json parallel = {{"tensor", tensor}, {"pipeline", pipeline}, {"data", data}};
    if (!more.is_null()) parallel.update(more);
    return {{"parallel", parallel}};
  }

  // Writes the configuration with `changes` to tune.json.
  void configure(const nlohmann::json& changes) const { write("tune.json", config_with(changes).dump(2)); }

  // `count` processes that are ranks by their environment.
  RunningRanks start_ranks(int count, std::vector<std::string> args = {},
                           LauncherStyle style = test::torchrun_variables) const {
    args.insert(args.begin(), {"--config", (folder_ / "tune.json").string()});
    const int port = comm::free_port();
    RunningRanks::Processes processes;
    for (int rank = 0; rank < count; ++rank)
      processes.push_back(std::make_unique<test::Process>(
          EE_BIN_DIR "/ee-tune", args, folder_ / fmt::format("rank-{}.log", rank), style(rank, count, port)));
    return RunningRanks(std::move(processes));
  }

  void expect_nothing_written() const {
    for (const auto& entry : std::filesystem::directory_iterator(folder_))
      EXPECT_FALSE(entry.path().filename().string().starts_with("out") && entry.path().extension() != ".log")
          << entry.path();
  }
};

}  // namespace ee
