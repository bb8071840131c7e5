// Bytes that are to be text.
#include <string>

#include "ee/base/error.h"
#include "ee/data/documents.h"
#include "ee/format/file_kind.h"

namespace ee::data {

using base::UserError;

size_t find_invalid_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  size_t i = 0;
  while (i < text.size()) {
    const unsigned lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4 || i + length > text.size()) return i;
    for (size_t k = 1; k < length; ++k)
      if ((byte(i + k) & 0xC0) != 0x80) return i;
    const unsigned second = byte(i + 1);
    const bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
    const bool out_of_range = (lead == 0xED && second > 0x9F) || (lead == 0xF4 && second > 0x8F);
    if (overlong || out_of_range) return i;
    i += length;
  }
  return text.size();
}

std::string as_text(std::string bytes, const std::string& origin) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (bytes.starts_with(kByteOrderMark)) bytes.erase(0, kByteOrderMark.size());
  if (const size_t bad = find_invalid_utf8(bytes); bad < bytes.size())
    throw UserError("{}: not UTF-8 text: byte 0x{:02x} at offset {}; convert it to UTF-8, or leave it out",
                    origin, static_cast<unsigned char>(bytes[bad]), bad);
  return bytes;
}

std::string read_text(const std::filesystem::path& file) {
  format::UnpackedFile unpacked(file);
  format::check_is_text(unpacked);
  return as_text(unpacked.read_rest(), file.string());
}

}  // namespace ee::data
