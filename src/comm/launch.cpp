#include "ee/comm/launch.h"

#include <array>
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

// Kubernetes' operators give each host one process and say nothing about its place there.
void read_local_rank(const Reader& read, LaunchInfo& info) {
  info.local_assumed = !read.has("LOCAL_RANK") && !read.has("LOCAL_WORLD_SIZE") && info.world_size > 1;
  if (read.has("LOCAL_RANK") || (read.has("LOCAL_WORLD_SIZE") && read.count({"LOCAL_WORLD_SIZE"}) != 1)) {
    info.local_rank = read.count({"LOCAL_RANK"});
  }
  if (read.has("LOCAL_WORLD_SIZE") || (read.has("LOCAL_RANK") && info.world_size > 1)) {
    info.local_world_size = read.count({"LOCAL_WORLD_SIZE"});
  }
  check_range("LOCAL_RANK", info.local_rank, "LOCAL_WORLD_SIZE", info.local_world_size);
  check_range("LOCAL_WORLD_SIZE", info.local_world_size - 1, "WORLD_SIZE", info.world_size);
}

void read_torchrun(const Reader& read, LaunchInfo& info) {
  info.rank = read.count({"RANK"});
  info.world_size = read.count({"WORLD_SIZE"});
  check_range("RANK", info.rank, "WORLD_SIZE", info.world_size);
  read_local_rank(read, info);
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

// srun has started this process. sbatch's script and salloc's shell are one process in a job of any number of
// tasks: they have no step, or one of the numbers that Slurm keeps for such (batch, interactive, extern).
bool in_slurm_step(const Reader& read) {
  const auto step = read.text(read.has("SLURM_STEP_ID") ? "SLURM_STEP_ID" : "SLURM_STEPID");
  constexpr int64_t kReserved = 0xfffffff0;
  int64_t number = 0;
  if (!step) return false;
  const auto [end, error] = std::from_chars(step->data(), step->data() + step->size(), number);
  return error == std::errc() && end == step->data() + step->size() && number < kReserved;
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
  info.local_rank = in_slurm_step(read) ? read.count({"MPI_LOCALRANKID", "SLURM_LOCALID"})
                                        : read.count({"MPI_LOCALRANKID"});
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

// "[::1]", as in an URL, is ::1.
std::string without_brackets(const std::string& host) {
  return host.size() > 2 && host.front() == '[' && host.back() == ']' ? host.substr(1, host.size() - 2)
                                                                      : host;
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
  info.master_addr = address ? without_brackets(*address) : find_master(read, info);
  info.master_port = port ? *port : find_port(read);
  if (info.master_port < 1 || info.master_port > 65535)
    throw UserError("MASTER_PORT={}: a port from 1 to 65535 was expected", info.master_port);
}

// By which variables a launcher other than torchrun shows itself.
struct Signs {
  Launcher launcher;
  const char* rank;
  std::array<const char*, 2> sizes;  // the first that is set counts
};
constexpr std::array kSigns = {
    Signs{Launcher::kOpenMpi, "OMPI_COMM_WORLD_RANK", {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"}},
    Signs{Launcher::kPmi, "PMI_RANK", {"PMI_SIZE", "PMI_SIZE"}},
    Signs{Launcher::kSlurm, "SLURM_PROCID", {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}}};

std::optional<int> size_by(const Environment& environment, const Signs& signs) {
  const Reader read(environment, launcher_name(signs.launcher));
  const auto size = read.optional_count(signs.sizes[0]);
  return size ? size : read.optional_count(signs.sizes[1]);
}

// The innermost that says, or says by half, that there are several processes. A size of 1 is what an
// interactive shell or an earlier program leaves behind, and says nothing.
const Signs* find_signs(const Environment& environment) {
  const Reader read(environment, "");
  for (const Signs& signs : kSigns) {
    const bool shows = signs.launcher == Launcher::kSlurm ? in_slurm_step(read)
                                                          : read.has(signs.rank) || read.has(signs.sizes[0]);
    if (shows && size_by(environment, signs) != 1) return &signs;
  }
  return nullptr;
}

[[noreturn]] void refuse_contradiction(const Environment& environment, const Signs& signs) {
  const Reader read(environment, "");
  throw UserError(
      "RANK={} and WORLD_SIZE={} contradict {} with {}={} of {} processes; unset those that have not started "
      "this process",
      read.text("RANK").value_or("(not set)"), read.text("WORLD_SIZE").value_or("(not set)"),
      launcher_name(signs.launcher), signs.rank, read.text(signs.rank).value_or("(not set)"),
      size_by(environment, signs).value_or(0));
}

// A launcher shows by any of its rank variables, so that half a set is an error and not a single process.
// torchrun comes first: others start it, and it starts nobody else.
Launcher find_launcher(const Environment& environment) {
  const Reader read(environment, "torchrun");
  const Signs* other = find_signs(environment);
  const bool own_rank = read.has("RANK") || read.has("LOCAL_RANK");
  const auto size = read.optional_count("WORLD_SIZE");
  if (!own_rank && size.value_or(1) == 1) return other ? other->launcher : Launcher::kNone;
  if (!other || read.has("TORCHELASTIC_RUN_ID")) return Launcher::kTorchrun;
  const auto other_size = size_by(environment, *other);
  if (!own_rank) {  // WORLD_SIZE as batch scripts export it for what srun starts
    if (size == other_size) return other->launcher;
    refuse_contradiction(environment, *other);
  }
  const bool other_rank = size == other_size && read.has("RANK") &&
                          read.optional_count("RANK") !=
                              Reader(environment, launcher_name(other->launcher)).optional_count(other->rank);
  if (size == 1 || other_rank) refuse_contradiction(environment, *other);
  return Launcher::kTorchrun;
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
