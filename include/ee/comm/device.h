// Where a run computes. CUDA and NCCL live in a plug-in, so that a run on the CPU never loads them.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

namespace ee::comm {

// "cpu", "cuda" (the first GPU) or "cuda:<n>". For a GPU loads libee_cuda.so from beside the program or
// ../lib; afterwards tensors can be made on the device. UserError: another name; a build without the plug-in;
// no NVIDIA driver; CUDA libraries missing; fewer GPUs than <n> + 1.
at::Device open_device(const std::string& name);

// Most bytes that tensors have taken on a GPU that open_device() gave, since the process began.
int64_t device_memory_peak(at::Device device);

// NCCL's version as it numbers itself (22809 is 2.28.9); only after open_device() gave a GPU.
int nccl_version();

}  // namespace ee::comm
