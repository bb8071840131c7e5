# NCCL's header, for the version number that the CUDA plug-in reports: from the wheel that PyTorch runs with, else from
# wherever the CUDA toolkit or the system has it. Nothing is linked: libtorch_cuda brings NCCL along.
if(EE_CUDA_FOUND)
  find_path(EE_NCCL_INCLUDE nccl.h HINTS ${EE_TORCH_DIR}/../nvidia/nccl/include ${CUDAToolkit_INCLUDE_DIRS})
  if(NOT EE_NCCL_INCLUDE)
    message(FATAL_ERROR "nccl.h not found beside the CUDA toolkit. Install the packages of third_party/requirements-cuda.txt "
                        "into .venv, or libnccl-dev, or pass -DEE_NCCL_INCLUDE=..., or -DEE_CUDA=OFF")
  endif()
endif()
