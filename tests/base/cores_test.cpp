#include "ee/base/cores.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <string>

#include "ee/base/file.h"

namespace ee::base {
namespace {

namespace fs = std::filesystem;

class CpuQuota : public ::testing::Test {
 protected:
  CpuQuota() : root_(fs::path(::testing::TempDir()) / ("ee-cores-" + std::to_string(::getpid()))) {
    fs::remove_all(root_);
  }
  ~CpuQuota() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    write_file_atomically(root_ / path, text);
  }

  const fs::path root_;
};

constexpr const char* kSecondVersion =
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
constexpr const char* kFirstVersion =
    "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw master:11 - cgroup cgroup rw,cpu,cpuacct\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw master:12 - cgroup cgroup rw,cpuset\n";

TEST_F(CpuQuota, NothingIsKnownWithoutGroups) { EXPECT_EQ(cpu_quota(root_), std::nullopt); }

TEST_F(CpuQuota, IsTheSmallestOnTheWayUp) {
  write("proc/self/mountinfo", kSecondVersion);
  write("proc/self/cgroup", "0::/job/step/task\n");
  EXPECT_EQ(cpu_quota(root_), std::nullopt);
  write("sys/fs/cgroup/job/step/task/cpu.max", "max 100000\n");
  EXPECT_EQ(cpu_quota(root_), std::nullopt);
  write("sys/fs/cgroup/job/cpu.max", "250000 100000\n");
  EXPECT_EQ(cpu_quota(root_), 2.5);
  write("sys/fs/cgroup/job/step/cpu.max", "800000 100000\n");
  EXPECT_EQ(cpu_quota(root_), 2.5);
  write("sys/fs/cgroup/job/step/task/cpu.max", "50000 100000\n");
  EXPECT_EQ(cpu_quota(root_), 0.5);
}

TEST_F(CpuQuota, IsReadAtTheTopOfAContainer) {
  write("proc/self/mountinfo", kSecondVersion);
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/cpu.max", "150000 50000\n");
  EXPECT_EQ(cpu_quota(root_), 3);
}

TEST_F(CpuQuota, IsReadInTheFirstVersion) {
  write("proc/self/mountinfo", kFirstVersion);
  write("proc/self/cgroup", "12:cpuset:/other\n3:cpu,cpuacct:/docker/abc\n0::/unified\n");
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cpu_quota(root_), std::nullopt);
  write("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "400000\n");
  write("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cpu_quota(root_), 4);
}

// Docker mounts the container's own group, and /proc still tells the host's name of it.
TEST_F(CpuQuota, IsFoundWhereTheMountBeginsAtTheGroup) {
  for (const char* begin : {"/docker/abc", "/somewhere/else"}) {
    write("proc/self/mountinfo",
          "33 31 0:30 " + std::string(begin) + " /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n");
    write("proc/self/cgroup", "3:cpu:/docker/abc\n");
    write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "600000\n");
    write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    EXPECT_EQ(cpu_quota(root_), 6) << begin;
  }
}

TEST(ShareCores, DividesWhatMaskAndQuotaLeave) {
  EXPECT_EQ(share_cores(8, 8, std::nullopt, 1), 8);
  EXPECT_EQ(share_cores(8, 8, std::nullopt, 3), 2);
  EXPECT_EQ(share_cores(2, 2, std::nullopt, 3), 1) << "at least one";
  EXPECT_EQ(share_cores(64, 64, 2.5, 1), 3) << "a part of a core is one more thread";
  EXPECT_EQ(share_cores(64, 64, 8.0, 4), 2);
  EXPECT_EQ(share_cores(64, 64, 0.25, 1), 1);
  EXPECT_EQ(share_cores(4, 4, 8.0, 1), 4);
}

TEST(ShareCores, BoundRanksHaveTheirOwn) {
  EXPECT_EQ(share_cores(8, 64, std::nullopt, 8), 8) << "each of 8 ranks is bound to 8 of 64";
  EXPECT_EQ(share_cores(32, 64, std::nullopt, 4), 16) << "two ranks share a socket";
  EXPECT_EQ(share_cores(8, 4, std::nullopt, 1), 8) << "a mask may also be wider than the parent's";
}

TEST(CoresForEach, IsAtMostTheAffinityMask) {
  cpu_set_t before, one;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(cores_for_each(1), 1);
  ASSERT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
  EXPECT_GE(cores_for_each(1), 1);
  EXPECT_LE(cores_for_each(1), CPU_COUNT(&before));
}

}  // namespace
}  // namespace ee::base
