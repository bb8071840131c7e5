// A SentencePiece model (tokenizer.model) as the description that tokenizer.json would give of it.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "tokenizer_config.h"
#include "transformers_class.h"

namespace ee::tokenizer {

// As transformers 5 converts it when there is no tokenizer.json: for `which`, or from the model's own
// settings if that is `as_written`. Fills in the roles that the model names and `config` does not. UserError:
// not such a model, or one that is not BPE or changes characters before it reads them.
nlohmann::json describe_sentencepiece(const std::filesystem::path& path, TransformersClass which,
                                      TokenizerConfig& config);

}  // namespace ee::tokenizer
