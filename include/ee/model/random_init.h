// First weights that are random: the same numbers for the same seed.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace ee::model {

// A stream of random numbers of its own for each (seed, index).
at::Generator generator_for(uint64_t seed, uint64_t index);

// f32: normal(0, 0.02), those of o_proj and down_proj further divided by sqrt(2 * layers) (as in GPT-2;
// EE-LLM's scaled initialization); biases 0, norms 1. `name` ends as in the tensor table.
at::Tensor random_tensor(const std::string& name, const std::vector<int64_t>& sizes, int64_t layers,
                         at::Generator& generator);

}  // namespace ee::model
