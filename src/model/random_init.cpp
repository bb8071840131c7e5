#include "ee/model/random_init.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>

namespace ee::model {

at::Generator generator_for(uint64_t seed, uint64_t index) {
  constexpr uint64_t kSeedStride = 1000003;  // keeps the pairs apart
  return at::detail::createCPUGenerator(seed * kSeedStride + index);
}

at::Tensor random_tensor(const std::string& name, const std::vector<int64_t>& sizes, int64_t layers,
                         at::Generator& generator) {
  constexpr double kDeviation = 0.02;
  if (name.ends_with(".bias")) return at::zeros(sizes, at::kFloat);
  if (sizes.size() == 1) return at::ones(sizes, at::kFloat);
  const bool output = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
  const double scale = output ? 1.0 / std::sqrt(2.0 * static_cast<double>(layers)) : 1.0;
  return at::randn(sizes, generator, at::kFloat).mul_(kDeviation * scale);
}

}  // namespace ee::model
