// UTF-8 as bytes that may be broken: what a decoder of untrusted text does with each of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ee::tokenizer {

struct Utf8Character {
  uint32_t code = 0;       // meaningful only if `valid`
  std::size_t length = 1;  // bytes: of the character, or of the broken sequence that one U+FFFD stands for
  bool valid = false;
  bool truncated = false;  // broken only because the text ends: more bytes could complete it
};

// The character at the start of `text` (not empty). A broken sequence is as long as Unicode's "maximal
// subpart" rule says (Unicode 15, table 3-8), as in Python's errors="replace" and Rust's from_utf8_lossy.
Utf8Character decode_utf8(std::string_view text);

void append_utf8(uint32_t code, std::string& text);

bool is_valid_utf8(std::string_view text);

// `text` with every broken sequence replaced by U+FFFD.
std::string repair_utf8(std::string_view text);

}  // namespace ee::tokenizer
