// ggml's element types: how many elements stand in a block and how many bytes it takes.
#pragma once

#include <string_view>

#include "ee/format/gguf.h"

namespace ee::format {

struct GgmlTypeInfo {
  uint32_t number;
  std::string_view name;
  int64_t block_elements;
  int64_t block_bytes;
};

// nullptr: ggml has no such type (or had it and removed it), so the bytes of a tensor cannot be counted.
const GgmlTypeInfo* find_ggml_type(GgmlType type);

}  // namespace ee::format
