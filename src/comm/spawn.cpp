#include "ee/comm/spawn.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "ee/base/error.h"
#include "ee/base/temporary_failure.h"

extern char** environ;

namespace ee::comm {

namespace {

using base::UserError;
using Clock = std::chrono::steady_clock;

// Blocks the signals that the waiting loop takes itself, and puts the mask back.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigemptyset(&set_);
    for (const int number : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&set_, number);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

  const sigset_t& before() const { return before_; }

  // The next of them, or 0 after `limit`.
  int wait(std::chrono::milliseconds limit) const {
    const timespec time{limit.count() / 1000, limit.count() % 1000 * 1'000'000};
    const int number = sigtimedwait(&set_, nullptr, &time);
    return number > 0 ? number : 0;
  }

 private:
  sigset_t set_, before_;
};

// The environment with torchrun's variables, as exec wants it.
class RankEnvironment {
 public:
  RankEnvironment(int rank, int count, int port) {
    const std::vector<std::pair<std::string, std::string>> ours = {
        {"RANK", std::to_string(rank)},       {"WORLD_SIZE", std::to_string(count)},
        {"LOCAL_RANK", std::to_string(rank)}, {"LOCAL_WORLD_SIZE", std::to_string(count)},
        {"MASTER_ADDR", "127.0.0.1"},         {"MASTER_PORT", std::to_string(port)}};
    const auto replaced = [&](const std::string& entry) {
      if (entry.starts_with("TORCHELASTIC_")) return true;  // a torchrun around us is not the ranks' launcher
      for (const auto& [name, value] : ours)
        if (entry.starts_with(name + "=")) return true;
      return false;
    };
    for (char** entry = environ; *entry; ++entry)
      if (!replaced(*entry)) text_.emplace_back(*entry);
    for (const auto& [name, value] : ours) text_.push_back(name + "=" + value);
    for (auto& entry : text_) pointers_.push_back(entry.data());
    pointers_.push_back(nullptr);
  }
  char* const* get() const { return pointers_.data(); }

 private:
  std::vector<std::string> text_;
  std::vector<char*> pointers_;
};

// The child after fork: async-signal-safe calls only. Reports a failed exec as errno through `report`.
[[noreturn]] void become_rank(char* const* arguments, char* const* environment, pid_t parent,
                              pid_t process_group, bool no_input, const sigset_t& mask, int report) {
  setpgid(0, process_group);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it died before the line above
  if (no_input) {
    const int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    close(null);
  }
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  execvpe(arguments[0], arguments, environment);
  const int error = errno;
  [[maybe_unused]] const ssize_t ignored = write(report, &error, sizeof error);
  _exit(127);
}

pid_t start_rank(const std::vector<char*>& arguments, int rank, int count, int port, pid_t process_group,
                 const sigset_t& mask) {
  const RankEnvironment environment(rank, count, port);
  const bool no_input = rank > 0 || isatty(STDIN_FILENO);
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0)
    throw UserError("cannot start rank {}: pipe: {}", rank, std::strerror(errno));
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0)
    become_rank(arguments.data(), environment.get(), parent, process_group, no_input, mask, report[1]);
  const int fork_error = errno;
  close(report[1]);
  int exec_error = 0;
  if (child > 0) {
    setpgid(child, process_group ? process_group : child);  // as the child does: whoever comes first
    while (read(report[0], &exec_error, sizeof exec_error) < 0 && errno == EINTR) {
    }
  }
  close(report[0]);
  if (child < 0) throw UserError("cannot start rank {}: fork: {}", rank, std::strerror(fork_error));
  if (exec_error) {
    waitpid(child, nullptr, 0);
    throw UserError("cannot start {}: {}; give the path of a program", arguments[0],
                    std::strerror(exec_error));
  }
  return child;
}

// The running ranks; ends and reaps those left when it is destroyed.
class Ranks {
 public:
  ~Ranks() {
    send(SIGKILL);
    for (const pid_t pid : running_) waitpid(pid, nullptr, 0);
  }
  void add(pid_t pid) { running_.push_back(pid); }
  bool empty() const { return running_.empty(); }
  void send(int number) const {
    for (const pid_t pid : running_) kill(pid, number);
  }
  // Calls ended(exit code) for each rank that has ended since.
  template <typename Ended>
  void reap(const Ended& ended) {
    std::erase_if(running_, [&](pid_t pid) {
      int status = 0;
      if (waitpid(pid, &status, WNOHANG) != pid) return false;
      ended(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
      return true;
    });
  }

 private:
  std::vector<pid_t> running_;
};

int wait_for_ranks(Ranks& ranks, const BlockedSignals& signals, std::chrono::milliseconds grace) {
  int result = 0, passed_on = 0, killed_with = 0;
  Clock::time_point deadline = Clock::time_point::max();
  while (!ranks.empty()) {
    const int number = signals.wait(std::chrono::milliseconds(50));
    if (number == SIGINT || number == SIGTERM) ranks.send(passed_on = number);
    ranks.reap([&](int code) {
      if (code == 0 || killed_with != 0) return;  // what we end ourselves has not failed first
      if (result == 0 || result == base::kExitTemporaryFailure) result = code;
      if (code != 128 + passed_on && deadline == Clock::time_point::max()) deadline = Clock::now() + grace;
    });
    if (Clock::now() < deadline) continue;
    ranks.send(killed_with = killed_with == 0 ? SIGTERM : SIGKILL);
    deadline = Clock::now() + grace;
  }
  return result;
}

}  // namespace

int free_port() {
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  socklen_t size = sizeof address;
  const bool ok = bind(descriptor, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                  getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  const int error = errno;
  close(descriptor);
  if (!ok) throw UserError("cannot find a free port: {}", std::strerror(error));
  return ntohs(address.sin_port);
}

int spawn_local(int count, const std::vector<std::string>& command, const SpawnOptions& options) {
  if (count < 1) throw UserError("cannot start {} processes; at least 1 was expected", count);
  if (command.empty()) throw UserError("nothing to start: a command was expected");
  std::vector<char*> arguments;
  for (const auto& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const int port = free_port();
  const BlockedSignals signals;
  Ranks ranks;
  pid_t process_group =
      0;  // a group of their own, led by rank 0: the terminal's Ctrl-C comes through us alone
  for (int rank = 0; rank < count; ++rank) {
    const pid_t pid = start_rank(arguments, rank, count, port, process_group, signals.before());
    ranks.add(pid);
    if (rank == 0) process_group = pid;
  }
  return wait_for_ranks(ranks, signals, options.grace);
}

}  // namespace ee::comm
