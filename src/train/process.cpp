#include "process.h"

#include <malloc.h>
#include <unistd.h>

#include <fstream>
#include <limits>
#include <string>

namespace ee::train {

int64_t peak_memory() {
  // Not getrusage(): its ru_maxrss begins with the size of the process that started this one.
  std::ifstream status("/proc/self/status");
  for (std::string name; status >> name;) {
    if (int64_t kibibytes = 0; name == "VmHWM:" && status >> kibibytes) return kibibytes * 1024;
    status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

int64_t resident_memory() {
  std::ifstream statm("/proc/self/statm");  // pages: total, resident, ...
  int64_t total = 0, resident = 0;
  return statm >> total >> resident ? resident * ::sysconf(_SC_PAGESIZE) : 0;
}

void keep_freed_memory() {
#ifdef __GLIBC__
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  ::mallopt(M_TOP_PAD, 64 << 20);
#endif
}

}  // namespace ee::train
