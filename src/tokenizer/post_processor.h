// What the `post_processor` of tokenizer.json puts around the ids of a text.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace ee::tokenizer {

// The one token it puts in front, if any. UserError with `where` if it adds anything else, such as an EOS.
std::optional<int64_t> leading_token(const nlohmann::json& post_processor, const std::string& where);

}  // namespace ee::tokenizer
