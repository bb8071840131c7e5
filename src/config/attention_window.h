// Which layers see only a window of the text, in config.json.
#pragma once

#include "ee/config/model_config.h"
#include "json_fields.h"

namespace ee::config {

// Fills window and window_layers as transformers reads `sliding_window`, `use_sliding_window`,
// `max_window_layers` and `layer_types`; model_type, layers and max_positions must be set. A window that no
// text can outgrow is none. A type of layer that is neither full nor windowed attention is a problem.
void read_attention_window(const JsonFields& fields, ModelConfig& config);

// The keys that read_attention_window() reads the same from.
void write_attention_window(const ModelConfig& config, Json& json);

}  // namespace ee::config
