# llama.cpp's Jinja engine, which renders chat templates: llama_cpp::jinja, a static library of its common/jinja and the
# two helpers that it includes. Compiled as it is, without our warnings.
if(NOT EXISTS "${EE_LLAMA_DIR}/common/jinja/runtime.cpp")
  message(FATAL_ERROR "llama.cpp's sources not found (looked in '${EE_LLAMA_DIR}'). Run scripts/setup.sh, or pass "
                      "-DEE_LLAMA_DIR=<folder of llama.cpp>")
endif()

set(engine ${EE_LLAMA_DIR}/common)
add_library(llama_jinja STATIC ${engine}/jinja/lexer.cpp ${engine}/jinja/parser.cpp ${engine}/jinja/runtime.cpp
  ${engine}/jinja/string.cpp ${engine}/jinja/value.cpp ${engine}/json.cpp ${engine}/unicode.cpp)
target_include_directories(llama_jinja SYSTEM PUBLIC ${engine})
target_link_libraries(llama_jinja PRIVATE nlohmann_json::nlohmann_json)
target_compile_options(llama_jinja PRIVATE -w -fPIC)
# json.cpp wants one macro of ggml's, which is not built here.
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/llama-jinja/ggml.h CONTENT
  "#include <cstdlib>\n#define GGML_ASSERT(condition) ((condition) ? (void)0 : std::abort())\n")
target_include_directories(llama_jinja SYSTEM PRIVATE ${PROJECT_BINARY_DIR}/llama-jinja)
add_library(llama_cpp::jinja ALIAS llama_jinja)
