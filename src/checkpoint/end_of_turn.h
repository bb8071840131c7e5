// Which tokens of a GGUF file end what the model has to say.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "ee/format/gguf.h"

namespace ee::checkpoint {

// tokenizer.ggml.<role>_token_id; nullopt where there is no such key. UserError: not in the vocabulary.
std::optional<int64_t> find_special_token(const format::GgufFile& file, std::string_view role,
                                          int64_t vocab_size);

// What llama.cpp stops at (llama_vocab_is_eog): the tokens that metadata names for it, and those whose text
// is known to end a turn. The file's end of text comes first if it has one, the rest in ascending order.
std::vector<int64_t> end_of_turn_tokens(const format::GgufFile& file, int64_t vocab_size);

}  // namespace ee::checkpoint
