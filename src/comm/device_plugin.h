// The CUDA plug-in's functions for the rest of this room.
#pragma once

namespace ee::comm {

// The address of a function that libee_cuda.so exports; only after open_device() gave a GPU.
void* find_in_cuda_plugin(const char* name);

template <typename Function>
Function* from_cuda_plugin(const char* name) {
  return reinterpret_cast<Function*>(find_in_cuda_plugin(name));
}

}  // namespace ee::comm
