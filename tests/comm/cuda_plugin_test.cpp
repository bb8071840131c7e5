// The CUDA plug-in itself, where it was built and the libraries that it needs are installed. No GPU is
// needed.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "cuda_plugin.h"

namespace ee::comm {
namespace {

TEST(CudaPlugin, LoadsCountsGpusAndKnowsNccl) {
  const std::filesystem::path plugin = EE_BUILD_DIR "/lib/libee_cuda.so";
  if (!std::filesystem::exists(plugin)) GTEST_SKIP() << "built without CUDA";
  void* handle = dlopen(plugin.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const std::string error = dlerror();
    if (error.find("cannot open shared object file") != std::string::npos)
      GTEST_SKIP() << "third_party/requirements-cuda.txt is not installed: " << error;
    FAIL() << error;
  }
  const auto gpus = reinterpret_cast<decltype(&ee_cuda_device_count)>(dlsym(handle, "ee_cuda_device_count"));
  const auto nccl = reinterpret_cast<decltype(&ee_nccl_version)>(dlsym(handle, "ee_nccl_version"));
  ASSERT_TRUE(gpus && nccl) << dlerror();
  EXPECT_GE(gpus(), 0);
  EXPECT_GE(nccl(), 22000);
}

}  // namespace
}  // namespace ee::comm
