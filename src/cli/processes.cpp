#include "processes.h"

#include <filesystem>

#include "ee/comm/spawn.h"

namespace ee::cli {

using base::UserError;

void declare_spawn(CommandLine& line, std::optional<int64_t>& spawn) {
  line.value("spawn", "N", spawn,
             "start N processes on this machine (torchrun, srun and mpirun are recognized without it)");
}

void check_spawn(const std::optional<int64_t>& spawn) {
  if (spawn && *spawn < 1) throw UserError("option --spawn: expected at least 1, got {}", *spawn);
}

int spawn_ranks(int64_t count, const std::vector<std::string>& args) {
  if (const auto launch = comm::detect_launch(); launch.launcher != comm::Launcher::kNone)
    throw UserError("option --spawn: {} has started this process already; leave one of the two out",
                    comm::launcher_name(launch.launcher));
  std::vector<std::string> command = {std::filesystem::read_symlink("/proc/self/exe").string()};
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--spawn")
      ++i;
    else if (!args[i].starts_with("--spawn="))
      command.push_back(args[i]);
  }
  return comm::spawn_local(static_cast<int>(count), command);
}

bool is_single_process(const char* command) {
  const comm::LaunchInfo launch = comm::detect_launch();
  if (launch.world_size == 1) return true;
  if (launch.local_rank == 0)
    throw UserError("{} runs in one process, but {} has started {}; start it without", command,
                    comm::launcher_name(launch.launcher), launch.world_size);
  return false;
}

}  // namespace ee::cli
