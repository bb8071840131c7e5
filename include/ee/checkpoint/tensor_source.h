// A tensor that is made when its turn to be written comes: with several ranks its parts then come together on
// the one that writes, and no more than one tensor is whole anywhere.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ee::checkpoint {

struct TensorSource {
  std::string name;
  std::vector<int64_t> shape;
  std::function<at::Tensor()> get;  // of that shape, on any device
};

using TensorSources = std::vector<TensorSource>;

}  // namespace ee::checkpoint
