#pragma once

#include "ee/config/model_config.h"
#include "json_text.h"
#include "problems.h"

namespace ee::config {

// RoPE from config.json: `rope_theta` and `rope_scaling`, or transformers 5's `rope_parameters`.
RopeConfig read_rope(const Json& config, Problems& problems);

// Adds `rope` in the first spelling, which every version of transformers reads.
void write_rope(const RopeConfig& rope, Json& config);

}  // namespace ee::config
