#include "ee/base/cores.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "ee/base/text.h"

namespace ee::base {
namespace fs = std::filesystem;

namespace {

// Where the groups of version 2, or of version 1's controller `cpu`, are mounted.
struct Hierarchy {
  bool second_version = false;
  std::string root;   // the group that the mount shows at its top
  std::string mount;  // absolute
};

bool has_word(const std::string& list, const std::string& word) {
  return std::ranges::count(split(list, ','), word) > 0;
}

std::vector<Hierarchy> find_hierarchies(const fs::path& root) {
  std::vector<Hierarchy> found;
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t dash = line.find(" - ");  // in front of it a varying number of optional fields
    if (dash == std::string::npos) continue;
    std::istringstream left(line), right(line.substr(dash + 3));
    std::string ignored, group, mount, kind, source, options;
    left >> ignored >> ignored >> ignored >> group >> mount;
    right >> kind >> source >> options;
    if (kind == "cgroup2" || (kind == "cgroup" && has_word(options, "cpu")))
      found.push_back({kind == "cgroup2", group, mount});
  }
  return found;
}

// This process's group in the hierarchy, "/a/b".
std::string find_group(const fs::path& root, bool second_version) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (second_version ? line.starts_with("0::") : has_word(controllers, "cpu"))
      return line.substr(second + 1);
  }
  return "/";
}

std::optional<double> quota_of(const fs::path& folder, bool second_version) {
  double quota = 0, period = 0;  // both in microseconds
  if (second_version) {
    std::ifstream limit(folder / "cpu.max");  // "max 100000" fails to read as a number
    limit >> quota >> period;
  } else {
    std::ifstream(folder / "cpu.cfs_quota_us") >> quota;  // -1: no limit
    std::ifstream(folder / "cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? std::optional(quota / period) : std::nullopt;
}

// Cores in the affinity mask of a process (0: this one); 0 where the system does not tell.
int64_t cores_in_mask(pid_t process) {
  for (size_t cores = 1024; cores <= 1 << 20; cores *= 2) {
    cpu_set_t* mask = CPU_ALLOC(cores);
    const size_t size = CPU_ALLOC_SIZE(cores);
    const bool known = ::sched_getaffinity(process, size, mask) == 0;
    const int64_t count = known ? CPU_COUNT_S(size, mask) : 0;
    CPU_FREE(mask);
    if (known) return count;
  }
  return 0;
}

}  // namespace

std::optional<double> cpu_quota(const fs::path& root) {
  std::optional<double> smallest;
  for (const Hierarchy& hierarchy : find_hierarchies(root)) {
    fs::path group = find_group(root, hierarchy.second_version);
    // A container often sees its own group at the top of the mount, but its name as the host knows it.
    const fs::path inside = group.lexically_relative(hierarchy.root);
    group = inside.empty() || *inside.begin() == ".." ? fs::path(".") : inside;
    const fs::path top = root / fs::path(hierarchy.mount).relative_path();
    for (;; group = group.parent_path()) {
      const auto quota = quota_of(top / group, hierarchy.second_version);
      if (quota && (!smallest || *quota < *smallest)) smallest = quota;
      if (group.empty() || group == ".") break;
    }
  }
  return smallest;
}

int64_t share_cores(int64_t own, int64_t run, std::optional<double> quota, int64_t processes) {
  run = std::max(own, run);
  if (quota) run = std::min(run, static_cast<int64_t>(std::ceil(*quota)));
  return std::max<int64_t>(1, std::min(own, run / processes));
}

int64_t cores_for_each(int64_t processes) {
  int64_t own = cores_in_mask(0);
  if (own == 0) own = static_cast<int64_t>(std::thread::hardware_concurrency());
  const pid_t parent = ::getppid();  // 0: outside of the container
  return share_cores(own, parent > 0 ? cores_in_mask(parent) : own, cpu_quota(), processes);
}

}  // namespace ee::base
