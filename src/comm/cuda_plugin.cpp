// The part of EE-Tune that needs CUDA at run time, a shared library of its own: loading it brings in
// LibTorch's CUDA half, which takes most of a second and a GPU machine's libraries.
#include "cuda_plugin.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <nccl.h>

int ee_cuda_device_count() { return c10::cuda::device_count(); }

int64_t ee_cuda_memory_peak(int device) {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
  constexpr size_t kAllPools = 0;
  return stats.allocated_bytes[kAllPools].peak;
}

int ee_nccl_version() {
  int version = 0;
  return ncclGetVersion(&version) == ncclSuccess ? version : 0;
}
