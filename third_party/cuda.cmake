# The CUDA toolkit's headers and LibTorch's CUDA libraries. Sets EE_CUDA_FOUND; then there are torch::c10_cuda and
# torch::torch_cuda, whose own libraries need others that only a GPU machine has (requirements-cuda.txt).
find_package(CUDAToolkit QUIET)
set(EE_CUDA_FOUND OFF)
if(EE_CUDA STREQUAL "ON" OR (EE_CUDA STREQUAL "AUTO" AND CUDAToolkit_FOUND))
  if(NOT CUDAToolkit_FOUND)
    message(FATAL_ERROR "EE_CUDA=ON, but the CUDA toolkit was not found")
  endif()
  set(EE_CUDA_FOUND ON)
  ee_torch_library(c10_cuda)
  ee_torch_library(torch_cuda)
endif()
