// SentencePiece models (tokenizer.model), as Llama 2, Mistral and Gemma have them.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "ee/tokenizer/tokenizer.h"
#include "tokenizer_config.h"

namespace ee::tokenizer {

// `description` is the tokenizer.json beside the model, or null: it says where a word gets a space in front.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(const std::filesystem::path& model,
                                                        const nlohmann::json& description,
                                                        const TokenizerConfig& config);

}  // namespace ee::tokenizer
