// One command in several processes: starting them, and who of them speaks.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli_options.h"
#include "ee/base/error.h"
#include "ee/comm/launch.h"
#include "ee/parallel/rank_grid.h"

namespace ee::cli {

// --spawn, as every command has it that may run in several processes. UserError: below 1.
void declare_spawn(CommandLine& line, std::optional<int64_t>& spawn);
void check_spawn(const std::optional<int64_t>& spawn);

// Runs the same command in each of `count` processes on this machine and returns its exit code. `args`: of
// the program, behind its name; --spawn is taken out. UserError: a launcher has started this process already.
int spawn_ranks(int64_t count, const std::vector<std::string>& args);

// For a command that runs in one process: UserError on the first rank of each machine when a launcher has
// started several; false on the others.
bool is_single_process(const char* command);

// All processes of a run find the same mistakes before they meet: the first of each machine speaks of them,
// the others give nothing.
template <typename Check>
auto one_speaks(int local_rank, Check&& check) -> std::optional<decltype(check())> {
  try {
    return check();
  } catch (const base::UserError&) {
    if (local_rank == 0) throw;
    return std::nullopt;
  }
}

}  // namespace ee::cli
