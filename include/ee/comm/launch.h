// Who started this process and which of how many it is, from the environment alone.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace ee::comm {

enum class Launcher { kNone, kTorchrun, kOpenMpi, kPmi, kSlurm };
const char* launcher_name(Launcher launcher);  // "torchrun", ...; "no launcher"

struct LaunchInfo {
  Launcher launcher = Launcher::kNone;
  int rank = 0;                           // among all processes
  int world_size = 1;                     // number of processes
  int local_rank = 0;                     // among the processes on this machine: picks the GPU
  int local_world_size = 1;               // processes on this machine: divides its cores
  bool local_assumed = false;             // nothing says so: each machine is taken to have one process
  std::string master_addr = "127.0.0.1";  // where rank 0 listens; unused by a single process
  int master_port = 0;
  bool agent_store = false;  // torchrun's agent listens there already; rank 0 must not
  std::string attempt;       // torchrun's restart count: keeps one attempt's messages from the next one's
};

// Looks a variable up; nothing when it is not set. `read_environment` is the process's own.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
std::optional<std::string> read_environment(const std::string& name);

// The first of these that tells of several processes decides; a launcher started by another (torchrun by
// srun) comes first. A size of 1, as an interactive shell or an earlier program leaves it, says nothing.
//   torchrun  RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT (also
//             scripts/launch.sh); without both LOCAL_ ones, as Kubernetes' operators do, each machine is
//             taken to have one process
//   Open MPI  OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE
//   PMI       PMI_RANK, PMI_SIZE with MPI_LOCALRANKID, MPI_LOCALNRANKS (Hydra) or SLURM_LOCALID (srun
//             --mpi=pmi2)
//   Slurm     SLURM_STEP_ID (without it this is sbatch's script or salloc's shell: one process),
//             SLURM_PROCID, SLURM_STEP_NUM_TASKS (or SLURM_NTASKS), SLURM_LOCALID,
//             SLURM_STEP_TASKS_PER_NODE
// None: a single process. MASTER_ADDR and MASTER_PORT always win. Without them, for all but torchrun:
//   address   127.0.0.1 if all ranks are on one machine, else the first host of SLURM_STEP_NODELIST or
//             SLURM_JOB_NODELIST (which must be where rank 0 runs, as srun and mpirun do by default)
//   port      12000 + (a number made from the job's id) % 20000, the same on every rank; 29500 without an id
// UserError names the variables that are missing, malformed, or contradict each other.
LaunchInfo detect_launch(const Environment& environment = read_environment);

// "node[07-09,12],gpu1" -> "node07": the first host of Slurm's compressed list.
std::string first_slurm_host(const std::string& node_list);

// "4(x2),3" at node 2 -> 3: tasks on one node from Slurm's compressed list; nothing if malformed or too
// short.
std::optional<int> slurm_tasks_on_node(const std::string& tasks_per_node, int node);

}  // namespace ee::comm
