// Several processes of one command on this machine.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace ee::comm {

struct SpawnOptions {
  // After a rank failed, the others have this long to end by themselves (they notice, and say what they were
  // doing), then again this long after SIGTERM; then SIGKILL.
  std::chrono::milliseconds grace{10'000};
};

// Starts `count` copies of `command` (command[0] is looked up in PATH) with torchrun's variables, MASTER_ADDR
// 127.0.0.1 and a free port, and waits for all of them. Standard output and error are shared; rank 0 keeps a
// standard input that is not a terminal, the others read nothing.
// Returns 0 if all ranks returned 0, else the exit code of the first rank that failed (128 + n for signal n);
// 75, which only says that another rank was lost, counts last.
// SIGINT and SIGTERM are passed on once to each rank (the ranks are not in the terminal's foreground group),
// and ranks that end with them are not cut short. No rank outlives this process, even if it is killed.
// UserError if the command cannot be started. Call it from the main thread, with no other children that
// matter.
int spawn_local(int count, const std::vector<std::string>& command, const SpawnOptions& options = {});

// A TCP port that nothing on this machine listened on a moment ago.
int free_port();

}  // namespace ee::comm
