// What the `post_processor` of tokenizer.json puts around the ids of a text.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace ee::tokenizer {

struct AroundText {
  std::optional<int64_t> before, behind;  // one token each
};

// UserError with `where` if it adds anything else, such as two tokens in front.
AroundText tokens_around_text(const nlohmann::json& post_processor, const std::string& where);

}  // namespace ee::tokenizer
