// A model with random weights, to be trained from the beginning.
#pragma once

#include <cstdint>
#include <filesystem>

namespace ee::checkpoint {

struct CreateOptions {
  std::filesystem::path config;     // a file in the format of config.json
  std::filesystem::path tokenizer;  // a model folder whose tokenizer files are copied
  std::filesystem::path output;     // must not exist; appears complete or not at all
  uint64_t seed = 1234;
};

// Writes `output` as a Hugging Face folder without exits. Weights are normal(0, 0.02), those of o_proj and
// down_proj further divided by sqrt(2 * layers) as in GPT-2, biases 0, norms 1, stored in config's dtype
// (f32 when it names none). The same numbers for the same seed. UserError: a tokenizer that is not there or
// has more tokens than the model.
void create_model(const CreateOptions& options);

}  // namespace ee::checkpoint
