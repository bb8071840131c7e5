// tie_word_embeddings against what the files hold.
#pragma once

#include "ee/checkpoint/tensor_files.h"
#include "ee/config/model_config.h"

namespace ee::checkpoint {

// What transformers does where config.json says that head and embedding are one matrix: one that is stored
// serves as both, whatever its name; two that differ in any element stay two, and tie_embeddings becomes
// false; of two equal ones the head is not looked at again. Reads both once where both are stored.
void settle_tied_head(config::ModelConfig& config, TensorFiles& files);

}  // namespace ee::checkpoint
