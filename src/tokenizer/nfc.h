// Unicode's canonical composition (normalization form C), which Qwen's tokenizers apply before anything else.
#pragma once

#include <string>
#include <string_view>

namespace ee::tokenizer {

// `text` must be valid UTF-8. Text below U+0300 is in this form already and is only scanned and copied.
std::string to_nfc(std::string_view text);

}  // namespace ee::tokenizer
