// The checksum of a tensor: XXH3-128 over "NAME\nDTYPE\n" with the dtype as safetensors spells it, each size
// of its shape followed by ',', "\n", and all its bytes. It does not depend on which file the tensor is in.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "ee/checkpoint/tensor_files.h"

namespace ee::checkpoint {

using TensorChecksums = std::map<std::string, std::string>;  // name -> 32 hex digits

struct NamedTensor {
  std::string name;
  const format::TensorView* view;
};

// The files' tensors by name.
std::vector<NamedTensor> named_tensors(const TensorFiles& files);

// Reads every byte once, on several threads, and keeps none of it in memory.
TensorChecksums compute_checksums(std::span<const NamedTensor> tensors);
TensorChecksums compute_checksums(const TensorFiles& files);

// The same tensor, whose checksum is put into `checksums` (which must live until then) while it is written.
format::TensorToWrite with_checksum(format::TensorToWrite tensor, TensorChecksums& checksums);

}  // namespace ee::checkpoint
