#include "ee/comm/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "ee/base/error.h"

namespace ee::comm {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(OpenDevice, CpuLoadsNoCuda) {
  EXPECT_TRUE(open_device("cpu").is_cpu());
  std::ifstream maps("/proc/self/maps");
  const std::string text(std::istreambuf_iterator<char>(maps), {});
  EXPECT_THAT(text, HasSubstr("libtorch_cpu"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("libtorch_cuda")));
}

TEST(OpenDevice, RefusesOtherNames) {
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:1000", "CPU"}) {
    EXPECT_THAT([&] { open_device(name); },
                ThrowsMessage<base::UserError>(HasSubstr("expected cpu, cuda or cuda:<number of the GPU>")))
        << name;
  }
}

TEST(OpenDevice, SaysWhatIsMissingWithoutAGpu) {
  if (std::filesystem::exists("/dev/nvidia0")) {
    GTEST_SKIP() << "this machine has a GPU";
  }
  EXPECT_THAT([] { open_device("cuda"); },
              ThrowsMessage<base::UserError>(AnyOf(HasSubstr("--device cuda: no NVIDIA GPU found"),
                                                   HasSubstr("--device cuda: this build has no CUDA part"))));
}

}  // namespace
}  // namespace ee::comm
