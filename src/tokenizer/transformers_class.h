// Which of transformers' tokenizer classes reads a folder, and what it makes of tokenizer.json. Some classes
// take only vocabulary, merges and post-processor from the file and bring their own normalizer, pre-tokenizer
// and decoder; ids are equal to transformers' only if we do the same.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tokenizer_config.h"

namespace ee::tokenizer {

enum class TransformersClass { as_written, llama, code_llama, gemma, gpt2, gpt_neox, qwen2 };

// As AutoTokenizer of transformers 5 chooses. `byte_level`: tokenizer.json has a ByteLevel pre-tokenizer.
TransformersClass transformers_class(const TokenizerConfig& config, bool byte_level);

// Puts the class's own parts into `description`, which has the form of tokenizer.json. Nothing for
// `as_written`.
void rebuild_as(TransformersClass which, const TokenizerConfig& config, nlohmann::json& description);

// The texts that the class gives to roles which no file mentions, for chat templates too.
void add_default_roles(TransformersClass which, TokenizerConfig& config);

}  // namespace ee::tokenizer
