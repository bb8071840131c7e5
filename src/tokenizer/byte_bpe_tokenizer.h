// Byte-level BPE as tokenizer.json describes it.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "ee/tokenizer/tokenizer.h"
#include "tokenizer_config.h"

namespace ee::tokenizer {

// `description` is the parsed tokenizer.json at `path`. UserError names what is broken or not supported;
// nlohmann::json::exception on a missing key or a wrong type.
std::unique_ptr<Tokenizer> make_byte_bpe_tokenizer(const nlohmann::json& description,
                                                   const std::filesystem::path& path,
                                                   const TokenizerConfig& config);

}  // namespace ee::tokenizer
