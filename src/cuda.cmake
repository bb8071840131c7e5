# The CUDA plug-in, libee_cuda.so. Its own libraries need others that only a GPU machine has; nothing but dlopen at
# run time asks for them.
ee_torch_library(c10_cuda)
ee_torch_library(torch_cuda)
add_library(ee_cuda SHARED comm/cuda_plugin.cpp comm/nccl_plugin.cpp)
target_include_directories(ee_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS}
  ${EE_TORCH_INCLUDE}/torch/csrc/api/include)  # c10d's headers reach for LibTorch's own C++ front end
target_compile_definitions(ee_cuda PRIVATE USE_C10D_NCCL)
# libtorch_cuda registers its kernels when loaded; nothing refers to it by name.
target_link_libraries(ee_cuda PRIVATE ee_options torch::torch_cpu
  -Wl,--no-as-needed torch::torch_cuda torch::c10_cuda -Wl,--as-needed)
set_target_properties(ee_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib)
install(TARGETS ee_cuda LIBRARY)
