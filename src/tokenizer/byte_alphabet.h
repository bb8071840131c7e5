// The byte alphabet of byte-level BPE (GPT-2): each of the 256 bytes has a printable character by which
// vocabularies spell it, e.g. "Ġ" for a space. Printable Latin-1 bytes are themselves; the others are U+0100
// onwards in order.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ee::tokenizer {

std::string spell_bytes(std::string_view bytes);

// The bytes that a vocabulary entry stands for; none if it has a character outside the alphabet.
std::optional<std::string> unspell_bytes(std::string_view spelling);

}  // namespace ee::tokenizer
