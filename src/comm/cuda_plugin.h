// What libee_cuda.so exports; looked up by name with dlsym.
#pragma once

#include <cstdint>

extern "C" {
// GPUs that the driver shows; 0 when there is none. Never throws.
int ee_cuda_device_count();
// Most bytes that LibTorch's allocator has handed out on this GPU.
int64_t ee_cuda_memory_peak(int device);
// As NCCL numbers itself: 22809 is 2.28.9; 0 when it does not answer.
int ee_nccl_version();
}
