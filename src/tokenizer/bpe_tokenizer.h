// BPE as tokenizer.json describes it: byte-level, or of SentencePiece's kind.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "ee/tokenizer/tokenizer.h"
#include "tokenizer_config.h"

namespace ee::tokenizer {

// `description` has the form of tokenizer.json; `where` is the file it comes from. What is put around a text
// is its post-processor's matter. UserError names what is broken or not supported; nlohmann::json::exception
// on a missing key or a wrong type.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(const nlohmann::json& description, const std::string& where,
                                              const TokenizerConfig& config);

}  // namespace ee::tokenizer
