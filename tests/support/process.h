// Runs programs as a user would: arguments in, exit code and output back.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "ee/base/error.h"
#include "ee/base/file.h"

namespace ee::test {

struct Finished {
  int exit_code = 0;   // 128 + signal when a signal ended it
  std::string output;  // standard output and standard error together
};

using Environment = std::map<std::string, std::string>;

// What torchrun tells a rank, all ranks on this machine.
inline Environment torchrun_variables(int rank, int count, int port) {
  return {{"RANK", std::to_string(rank)},       {"WORLD_SIZE", std::to_string(count)},
          {"LOCAL_RANK", std::to_string(rank)}, {"LOCAL_WORLD_SIZE", std::to_string(count)},
          {"MASTER_ADDR", "127.0.0.1"},         {"MASTER_PORT", std::to_string(port)}};
}

// A running child whose output goes to a file; killed when it is still there at the end.
class Process {
 public:
  // `environment`: variables on top of this process's.
  Process(const std::filesystem::path& program, const std::vector<std::string>& args,
          std::filesystem::path output, const Environment& environment = {})
      : output_(std::move(output)) {
    std::vector<std::string> words = {program.string()};
    words.insert(words.end(), args.begin(), args.end());
    std::vector<char*> argv = pointers(words);
    std::vector<std::string> variables = with_own(environment);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output_.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                     0644);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    const int error =
        ::posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), pointers(variables).data());
    posix_spawn_file_actions_destroy(&actions);
    EE_CHECK(error == 0, "cannot start {}", program.string());
  }
  ~Process() {
    if (pid_ > 0) {
      signal(SIGKILL);
      wait();
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Nothing after wait(): then -1 would mean every process of the machine.
  void signal(int number) const {
    if (pid_ > 0) ::kill(pid_, number);
  }
  std::string output() const { return base::read_text_file(output_); }

  // Until the output contains `text`; false when the process ended without it.
  bool wait_for(const std::string& text) {
    for (;;) {
      const bool ended = has_ended();
      if (output().find(text) != std::string::npos) return true;
      if (ended) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  // Whether it ends (or has ended) within `limit`.
  bool ends_within(std::chrono::milliseconds limit) const {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (!has_ended()) {
      if (std::chrono::steady_clock::now() >= deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

  Finished wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return {WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), output()};
  }

 private:
  static std::vector<char*> pointers(std::vector<std::string>& texts) {
    std::vector<char*> result;
    for (auto& text : texts) result.push_back(text.data());
    result.push_back(nullptr);
    return result;
  }

  static std::vector<std::string> with_own(const Environment& environment) {
    std::vector<std::string> variables;
    for (char** entry = environ; *entry; ++entry) {
      const std::string text = *entry;
      if (!environment.contains(text.substr(0, text.find('=')))) variables.push_back(text);
    }
    for (const auto& [name, value] : environment) variables.push_back(name + "=" + value);
    return variables;
  }

  bool has_ended() const {
    if (pid_ < 0) return true;
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid != 0;
  }

  std::filesystem::path output_;
  pid_t pid_ = -1;
};

}  // namespace ee::test
