#pragma once

#include <map>
#include <string>

#include "ee/format/gguf.h"

namespace ee::format {

struct GgufContents {
  std::map<std::string, GgufValue> metadata;
  std::map<std::string, GgufTensor> tensors;  // bytes point into the file's map
};

// Checks every size against the file before using it. UserError names the file and what lies.
GgufContents parse_gguf(const base::MappedFile& file);

}  // namespace ee::format
