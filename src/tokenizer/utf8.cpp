#include "utf8.h"

#include <cstring>

namespace ee::tokenizer {
namespace {

constexpr uint32_t kReplacement = 0xFFFD;

uint8_t byte_at(std::string_view text, std::size_t index) { return static_cast<uint8_t>(text[index]); }

}  // namespace

Utf8Character decode_utf8(std::string_view text) {
  const uint8_t lead = byte_at(text, 0);
  if (lead < 0x80) return {.code = lead, .length = 1, .valid = true};
  if (lead < 0xC2 || lead > 0xF4) return {};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and codes above U+10FFFF.
  uint8_t low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  uint32_t code = lead & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {.length = i, .truncated = true};
    const uint8_t next = byte_at(text, i);
    if (next < low || next > high) return {.length = i};
    code = code << 6 | (next & 0x3Fu);
    low = 0x80, high = 0xBF;
  }
  return {.code = code, .length = length, .valid = true};
}

void append_utf8(uint32_t code, std::string& text) {
  const auto put = [&](uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xE0 | code >> 12);
    } else {
      put(0xF0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3F));
    }
    put(0x80 | (code >> 6 & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

bool is_valid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (at + 8 <= text.size()) {  // eight ASCII bytes at once: most text is ASCII
      uint64_t block = 0;
      std::memcpy(&block, text.data() + at, sizeof(block));
      if ((block & 0x8080808080808080u) == 0) {
        at += 8;
        continue;
      }
    }
    const Utf8Character character = decode_utf8(text.substr(at));
    if (!character.valid) return false;
    at += character.length;
  }
  return true;
}

std::string repair_utf8(std::string_view text) {
  std::string repaired;
  repaired.reserve(text.size());
  while (!text.empty()) {
    const Utf8Character character = decode_utf8(text);
    if (character.valid) {
      repaired.append(text.substr(0, character.length));
    } else {
      append_utf8(kReplacement, repaired);
    }
    text.remove_prefix(character.length);
  }
  return repaired;
}

}  // namespace ee::tokenizer
