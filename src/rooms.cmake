# A room is a folder of src/ with one library; its line in src/CMakeLists.txt names the rooms whose headers it may
# include (with what those may include). scripts/check_includes.py reads the same lines.
add_library(ee_options INTERFACE)
target_include_directories(ee_options INTERFACE ${PROJECT_SOURCE_DIR}/include)
target_compile_options(ee_options INTERFACE -Wall -Wextra $<$<BOOL:${EE_WERROR}>:-Werror>
  $<$<BOOL:${EE_NATIVE}>:-march=native> $<$<CONFIG:Release>:-O3> -fno-math-errno -fPIC -fpch-preprocess)
# GCC 12 finds its own AVX-512 intrinsics uninitialized (its bug 105593).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(ee_options INTERFACE -Wno-maybe-uninitialized)
endif()
target_link_libraries(ee_options INTERFACE fmt::fmt spdlog::spdlog)

# One precompiled header for all rooms that see tensors: seconds a file saved.
add_library(ee_pch OBJECT src/pch.cpp)
target_link_libraries(ee_pch PUBLIC ee_options torch::torch_cpu)
target_precompile_headers(ee_pch PRIVATE src/pch.h)

# ee_room(NAME [TORCH] [DEPS rooms...] [LIBS libraries...])
function(ee_room name)
  cmake_parse_arguments(ROOM "TORCH" "" "DEPS;LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "_(main|plugin)\\.cpp$")
  add_library(ee_${name} STATIC ${sources})
  list(TRANSFORM ROOM_DEPS PREPEND ee_)
  target_link_libraries(ee_${name} PUBLIC ${ROOM_DEPS} ee_options ${ROOM_LIBS})
  target_include_directories(ee_${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/${name} ${CMAKE_CURRENT_BINARY_DIR}/${name})
  if(ROOM_TORCH)
    target_link_libraries(ee_${name} PUBLIC torch::torch_cpu)
    target_precompile_headers(ee_${name} REUSE_FROM ee_pch)
  endif()
endfunction()
