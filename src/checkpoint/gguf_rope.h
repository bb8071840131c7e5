// How a GGUF file of architecture "llama" says what RoPE does.
#pragma once

#include "ee/config/model_config.h"
#include "llama_metadata.h"

namespace ee::checkpoint {

inline constexpr const char* kRopeFactors = "rope_freqs.weight";

// As llama.cpp reads it: without a type of scaling a factor is linear, and a factor of 0 is none. UserError:
// another type, or factors that are not those of Llama 3.
config::RopeConfig gguf_rope_config(const format::GgufFile& file, const LlamaMetadata& llama,
                                    int64_t head_dim);

}  // namespace ee::checkpoint
