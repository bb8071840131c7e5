#include "ee/comm/launch.h"

#include <charconv>
#include <cstdint>
#include <cstdlib>

#include "ee/base/error.h"
#include "ee/base/text.h"

namespace ee::comm {

namespace {

using base::UserError;

constexpr int kDefaultPort = 29500;  // torch.distributed's own

std::optional<int> parse_int(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// FNV-1a: equal on every rank and machine, which is all that a port needs.
uint32_t hash_text(std::string_view text) {
  uint32_t hash = 2166136261u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

class Reader {
 public:
  Reader(const Environment& environment, const char* launcher)
      : environment_(environment), launcher_(launcher) {}

  bool has(const char* name) const { return text(name).has_value(); }

  // An empty variable counts as not set, as in most shells' habits.
  std::optional<std::string> text(const char* name) const {
    auto value = environment_(name);
    return value && !value->empty() ? value : std::nullopt;
  }

  std::optional<int> optional_count(const char* name) const {
    const auto value = text(name);
    if (!value) return std::nullopt;
    const auto number = parse_int(*value);
    if (!number || *number < 0)
      throw UserError("{}={}: a number from 0 on was expected; {} sets it", name, *value, launcher_);
    return number;
  }

  // Of several names for one thing, the first that is set.
  int count(std::initializer_list<const char*> names) const {
    for (const char* name : names)
      if (const auto value = optional_count(name)) return *value;
    const std::vector<std::string> all(names.begin(), names.end());
    throw UserError(
        "{} is not set, though other variables of {} are; start all ranks with the launcher, or unset them",
        base::join(all, " or "), launcher_);
  }

 private:
  const Environment& environment_;
  const char* launcher_;
};

void check_range(const char* rank_name, int rank, const char* size_name, int size) {
  if (size < 1) throw UserError("{}={}: at least 1 was expected", size_name, size);
  if (rank >= size)
    throw UserError("{}={} contradicts {}={}: ranks go from 0 to {}", rank_name, rank, size_name, size,
                    size - 1);
}

void read_torchrun(const Reader& read, LaunchInfo& info) {
  info.rank = read.count({"RANK"});
  info.world_size = read.count({"WORLD_SIZE"});
  check_range("RANK", info.rank, "WORLD_SIZE", info.world_size);
  if (info.world_size > 1 || read.has("LOCAL_RANK")) info.local_rank = read.count({"LOCAL_RANK"});
  if (info.world_size > 1 || read.has("LOCAL_WORLD_SIZE"))
    info.local_world_size = read.count({"LOCAL_WORLD_SIZE"});
  check_range("LOCAL_RANK", info.local_rank, "LOCAL_WORLD_SIZE", info.local_world_size);
  check_range("LOCAL_WORLD_SIZE", info.local_world_size - 1, "WORLD_SIZE", info.world_size);
  info.agent_store = read.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  info.attempt = read.text("TORCHELASTIC_RESTART_COUNT").value_or("0");
}

void read_open_mpi(const Reader& read, LaunchInfo& info) {
  info.rank = read.count({"OMPI_COMM_WORLD_RANK"});
  info.world_size = read.count({"OMPI_COMM_WORLD_SIZE"});
  info.local_rank = read.count({"OMPI_COMM_WORLD_LOCAL_RANK"});
  info.local_world_size = read.count({"OMPI_COMM_WORLD_LOCAL_SIZE"});
  check_range("OMPI_COMM_WORLD_RANK", info.rank, "OMPI_COMM_WORLD_SIZE", info.world_size);
  check_range("OMPI_COMM_WORLD_LOCAL_RANK", info.local_rank, "OMPI_COMM_WORLD_LOCAL_SIZE",
              info.local_world_size);
}

int slurm_local_size(const Reader& read, int world_size) {
  const auto nodes =
      read.optional_count(read.has("SLURM_STEP_NUM_NODES") ? "SLURM_STEP_NUM_NODES" : "SLURM_NNODES");
  if (nodes == 1) return world_size;
  const char* name =
      read.has("SLURM_STEP_TASKS_PER_NODE") ? "SLURM_STEP_TASKS_PER_NODE" : "SLURM_TASKS_PER_NODE";
  const int node = read.count({"SLURM_NODEID"});
  const auto list = read.text(name);
  const auto tasks = list ? slurm_tasks_on_node(*list, node) : std::nullopt;
  if (!tasks)
    throw UserError("{}={}: a list with an entry for node {} was expected", name, list.value_or(""), node);
  return *tasks;
}

void read_pmi(const Reader& read, LaunchInfo& info) {
  info.rank = read.count({"PMI_RANK"});
  info.world_size = read.count({"PMI_SIZE"});
  check_range("PMI_RANK", info.rank, "PMI_SIZE", info.world_size);
  if (info.world_size == 1) return;
  info.local_rank = read.count({"MPI_LOCALRANKID", "SLURM_LOCALID"});
  info.local_world_size =
      read.has("MPI_LOCALRANKID") ? read.count({"MPI_LOCALNRANKS"}) : slurm_local_size(read, info.world_size);
  check_range("the local rank", info.local_rank, "ranks on this machine", info.local_world_size);
}

void read_slurm(const Reader& read, LaunchInfo& info) {
  info.rank = read.count({"SLURM_PROCID"});
  info.world_size = read.count({"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"});
  check_range("SLURM_PROCID", info.rank, "SLURM_NTASKS", info.world_size);
  info.local_rank = read.count({"SLURM_LOCALID"});
  info.local_world_size = slurm_local_size(read, info.world_size);
  check_range("SLURM_LOCALID", info.local_rank, "tasks on this node", info.local_world_size);
}

std::string find_master(const Reader& read, const LaunchInfo& info) {
  if (info.local_world_size == info.world_size) return "127.0.0.1";
  for (const char* name : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"}) {
    const auto nodes = read.text(name);
    if (!nodes) continue;
    const std::string host = first_slurm_host(*nodes);
    if (host.empty()) throw UserError("{}={}: a list of hosts was expected", name, *nodes);
    return host;
  }
  throw UserError(
      "MASTER_ADDR is not set and {} does not say where rank 0 runs; set it on all ranks to the name or "
      "address of rank "
      "0's machine",
      launcher_name(info.launcher));
}

int find_port(const Reader& read) {
  for (const char* name : {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "SLURM_JOB_ID"}) {
    const auto job = read.text(name);
    if (job)
      return 12000 +
             static_cast<int>(hash_text(*job + "/" + read.text("SLURM_STEP_ID").value_or("")) % 20000);
  }
  return kDefaultPort;
}

void read_master(const Reader& read, LaunchInfo& info) {
  const auto address = read.text("MASTER_ADDR");
  const auto port = read.optional_count("MASTER_PORT");
  if (info.launcher == Launcher::kTorchrun && (!address || !port))
    throw UserError(
        "{} is not set, though RANK and WORLD_SIZE={} are; start all ranks with torchrun or "
        "scripts/launch.sh",
        address ? "MASTER_PORT"
        : port  ? "MASTER_ADDR"
                : "MASTER_ADDR and MASTER_PORT",
        info.world_size);
  info.master_addr = address ? *address : find_master(read, info);
  info.master_port = port ? *port : find_port(read);
  if (info.master_port < 1 || info.master_port > 65535)
    throw UserError("MASTER_PORT={}: a port from 1 to 65535 was expected", info.master_port);
}

// A launcher shows by any of its rank variables, so that half a set is an error and not a single process.
Launcher find_launcher(const Environment& environment) {
  const Reader read(environment, "");
  if (read.has("RANK") || read.has("WORLD_SIZE") || read.has("LOCAL_RANK")) return Launcher::kTorchrun;
  if (read.has("OMPI_COMM_WORLD_RANK") || read.has("OMPI_COMM_WORLD_SIZE")) return Launcher::kOpenMpi;
  if (read.has("PMI_RANK") || read.has("PMI_SIZE")) return Launcher::kPmi;
  if (read.has("SLURM_PROCID")) return Launcher::kSlurm;  // SLURM_NTASKS alone: a shell inside an allocation
  return Launcher::kNone;
}

}  // namespace

const char* launcher_name(Launcher launcher) {
  switch (launcher) {
    case Launcher::kTorchrun:
      return "torchrun";
    case Launcher::kOpenMpi:
      return "Open MPI";
    case Launcher::kPmi:
      return "PMI (Hydra or srun --mpi=pmi2)";
    case Launcher::kSlurm:
      return "Slurm";
    case Launcher::kNone:
      break;
  }
  return "no launcher";
}

std::optional<std::string> read_environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value ? std::optional<std::string>(value) : std::nullopt;
}

LaunchInfo detect_launch(const Environment& environment) {
  LaunchInfo info;
  info.launcher = find_launcher(environment);
  const Reader read(environment, launcher_name(info.launcher));
  switch (info.launcher) {
    case Launcher::kNone:
      return info;
    case Launcher::kTorchrun:
      read_torchrun(read, info);
      break;
    case Launcher::kOpenMpi:
      read_open_mpi(read, info);
      break;
    case Launcher::kPmi:
      read_pmi(read, info);
      break;
    case Launcher::kSlurm:
      read_slurm(read, info);
      break;
  }
  if (info.world_size > 1) read_master(read, info);
  return info;
}

std::string first_slurm_host(const std::string& node_list) {
  std::string host;
  for (std::size_t i = 0; i < node_list.size() && node_list[i] != ','; ++i) {
    if (node_list[i] != '[') {
      host += node_list[i];
      continue;
    }
    const std::size_t close = node_list.find(']', i);
    if (close == std::string::npos) return "";
    host += node_list.substr(i + 1, node_list.find_first_of(",-]", i) - i - 1);
    i = close;
  }
  return host;
}

std::optional<int> slurm_tasks_on_node(const std::string& tasks_per_node, int node) {
  for (const auto& entry : base::split(tasks_per_node, ',')) {  // "4" or "4(x2)"
    const std::size_t open = entry.find("(x");
    const auto tasks = parse_int(std::string_view(entry).substr(0, open));
    int repeat = 1;
    if (open != std::string::npos) {
      if (entry.back() != ')') return std::nullopt;
      repeat = parse_int(std::string_view(entry).substr(open + 2, entry.size() - open - 3)).value_or(0);
    }
    if (!tasks || *tasks < 1 || repeat < 1) return std::nullopt;
    if (node < repeat) return tasks;
    node -= repeat;
  }
  return std::nullopt;
}

}  // namespace ee::comm
