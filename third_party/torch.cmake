# LibTorch from the torch wheel. Its own CMake package insists on a CUDA toolkit, so we name the few libraries we link.
if(NOT EE_TORCH_DIR)
  file(GLOB EE_TORCH_DIR ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
endif()
if(NOT EXISTS "${EE_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch not found (looked in '${EE_TORCH_DIR}'). Run scripts/setup.sh, or pass -DEE_TORCH_DIR=...")
endif()

# The wheel's include folder also carries other libraries' headers (its own fmt, pybind11, ...) that would hide Debian's.
set(EE_TORCH_INCLUDE ${PROJECT_BINARY_DIR}/torch-include)
file(MAKE_DIRECTORY ${EE_TORCH_INCLUDE})
foreach(part ATen c10 caffe2 torch)
  file(CREATE_LINK ${EE_TORCH_DIR}/include/${part} ${EE_TORCH_INCLUDE}/${part} SYMBOLIC)
endforeach()

function(ee_torch_library name)
  add_library(torch::${name} SHARED IMPORTED)
  set_target_properties(torch::${name} PROPERTIES
    IMPORTED_LOCATION "${EE_TORCH_DIR}/lib/lib${name}.so"
    INTERFACE_INCLUDE_DIRECTORIES "${EE_TORCH_INCLUDE}")
endfunction()
ee_torch_library(c10)
ee_torch_library(torch_cpu)
target_link_libraries(torch::torch_cpu INTERFACE torch::c10)
target_compile_definitions(torch::torch_cpu INTERFACE USE_C10D_GLOO)

# The wheel's libraries find the wheel's other libraries by themselves; our programs only need the first step.
set(CMAKE_BUILD_RPATH "${EE_TORCH_DIR}/lib")
set(CMAKE_INSTALL_RPATH "${EE_TORCH_DIR}/lib")
add_link_options(-Wl,--disable-new-dtags -Wl,--as-needed -Wl,--allow-shlib-undefined)
