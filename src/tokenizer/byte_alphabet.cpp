#include "byte_alphabet.h"

#include <array>
#include <cstdint>

#include "utf8.h"

namespace ee::tokenizer {
namespace {

constexpr uint32_t kFirstExtra = 0x100;
constexpr uint32_t kCodes = kFirstExtra + 68;  // 68 bytes are not printable Latin-1

constexpr bool spells_itself(uint32_t byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<uint16_t, 256> code_of_byte{};
  std::array<int16_t, kCodes> byte_of_code{};

  constexpr Alphabet() {
    byte_of_code.fill(-1);
    uint32_t extra = kFirstExtra;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t code = spells_itself(byte) ? byte : extra++;
      code_of_byte[byte] = static_cast<uint16_t>(code);
      byte_of_code[code] = static_cast<int16_t>(byte);
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

std::string spell_bytes(std::string_view bytes) {
  std::string spelling;
  spelling.reserve(bytes.size() * 2);
  for (const char byte : bytes) append_utf8(kAlphabet.code_of_byte[static_cast<uint8_t>(byte)], spelling);
  return spelling;
}

std::optional<std::string> unspell_bytes(std::string_view spelling) {
  std::string bytes;
  while (!spelling.empty()) {
    const Utf8Character character = decode_utf8(spelling);
    if (!character.valid || character.code >= kCodes || kAlphabet.byte_of_code[character.code] < 0) return {};
    bytes.push_back(static_cast<char>(kAlphabet.byte_of_code[character.code]));
    spelling.remove_prefix(character.length);
  }
  return bytes;
}

}  // namespace ee::tokenizer
