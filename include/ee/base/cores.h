// How many threads may compute at once: not the cores that the machine has, but those that are this run's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace ee::base {

// Cores for each of `processes` of a run on this machine; at least 1. The run has the cores that its affinity
// mask (taskset, cpuset) and its CPU quota leave. The mask of the process that started this one counts as the
// run's: a launcher that binds each rank to cores of its own (srun, mpirun) has cut the rank's mask only, and
// then the rank has all of these.
int64_t cores_for_each(int64_t processes);

// The rule alone: `own` and `run` are the numbers of cores in the two masks, `quota` is the run's in cores.
int64_t share_cores(int64_t own, int64_t run, std::optional<double> quota, int64_t processes);

// The CPU quota of this process in cores: the smallest of its control group and all groups around it that are
// visible (cgroup v2's cpu.max, v1's cpu.cfs_quota_us over cpu.cfs_period_us); nothing without a limit.
// `root` is where proc/self and the mounted groups are found.
std::optional<double> cpu_quota(const std::filesystem::path& root = "/");

}  // namespace ee::base
