#include "python_text.h"

#include <clocale>
#include <cwctype>
#include <utility>

#include "ee/base/error.h"
#include "utf8.h"

namespace ee::tokenizer {
namespace {

bool is_space(uint32_t code) {  // Python's str.isspace()
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

// What repr() writes as an escape: controls, formats and every space but U+0020.
bool is_hidden(uint32_t code) {
  return code < 0x20 || (code >= 0x7F && code <= 0xA0) || code == 0xAD || (is_space(code) && code != ' ') ||
         (code >= 0x200B && code <= 0x200F) || (code >= 0x202A && code <= 0x202E) ||
         (code >= 0x2060 && code <= 0x206F) || (code >= 0xE000 && code <= 0xF8FF) || code == 0xFEFF ||
         (code >= 0xFFF0 && code <= 0xFFFB);
}

// The C library's tables for all of Unicode, whatever the user's locale is.
locale_t unicode_locale() {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  if (locale == nullptr)
    throw base::UserError("the system has no locale C.UTF-8; upper and lower case need it");
  return locale;
}

std::string map_case(std::string_view text, wint_t (*map)(wint_t, locale_t), std::string_view sharp_s) {
  std::string result;
  for (const std::string& character : characters_of(text)) {
    const Utf8Character decoded = decode_utf8(character);
    if (decoded.code == 0xDF && decoded.valid) {
      result += sharp_s;
    } else if (decoded.valid) {
      append_utf8(static_cast<uint32_t>(map(decoded.code, unicode_locale())), result);
    } else {
      result += character;
    }
  }
  return result;
}

std::string hexadecimal(uint32_t code, bool python) {
  if (python && code <= 0xFF) return fmt::format("\\x{:02x}", code);
  if (code <= 0xFFFF) return fmt::format("\\u{:04x}", code);
  if (python) return fmt::format("\\U{:08x}", code);
  const uint32_t rest = code - 0x10000;  // JSON knows UTF-16 only
  return fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
}

}  // namespace

std::vector<std::string> characters_of(std::string_view text) {
  std::vector<std::string> characters;
  while (!text.empty()) {
    const std::size_t length = decode_utf8(text).length;
    characters.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return characters;
}

bool is_python_space(std::string_view character) {
  const Utf8Character decoded = decode_utf8(character);
  return decoded.valid && is_space(decoded.code);
}

std::string strip(std::string_view text, Side side, const std::optional<std::string>& characters) {
  const std::vector<std::string> all = characters_of(text);
  const auto goes = [&](const std::string& character) {
    return characters ? characters->find(character) != std::string::npos : is_python_space(character);
  };
  std::size_t first = 0, end = all.size();
  if (side != Side::right) {
    while (first < end && goes(all[first])) ++first;
  }
  if (side != Side::left) {
    while (end > first && goes(all[end - 1])) --end;
  }
  std::string result;
  for (std::size_t i = first; i < end; ++i) result += all[i];
  return result;
}

std::string upper(std::string_view text) { return map_case(text, towupper_l, "SS"); }
std::string lower(std::string_view text) { return map_case(text, towlower_l, "\u00df"); }

std::string capitalize(std::string_view text) {
  if (text.empty()) return "";
  const std::size_t first = decode_utf8(text).length;
  const std::string head(text.substr(0, first));
  return (head == "\u00df" ? "Ss" : upper(head)) + lower(text.substr(first));
}

std::vector<std::string> split_at_space(std::string_view text) {
  std::vector<std::string> parts;
  bool inside = false;
  for (const std::string& character : characters_of(text)) {
    if (is_python_space(character)) {
      inside = false;
      continue;
    }
    if (!std::exchange(inside, true)) parts.emplace_back();
    parts.back() += character;
  }
  return parts;
}

std::vector<std::string> split(std::string_view text, std::string_view separator, int64_t times, Side from) {
  std::vector<std::string> parts;
  for (; times != 0; --times) {
    const std::size_t at = from == Side::left ? text.find(separator) : text.rfind(separator);
    if (at == std::string_view::npos) break;
    const std::string_view before = text.substr(0, at), after = text.substr(at + separator.size());
    parts.emplace_back(from == Side::left ? before : after);
    text = from == Side::left ? after : before;
  }
  parts.emplace_back(text);
  if (from == Side::right) parts = {parts.rbegin(), parts.rend()};
  return parts;
}

std::vector<std::string> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string> lines;
  const std::vector<std::string> all = characters_of(text);
  std::string line;
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::string end = all[i];
    if (end == "\r" && i + 1 < all.size() && all[i + 1] == "\n") end += all[++i];
    const uint32_t code = decode_utf8(end).code;
    const bool ends = (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
                      code == 0x2028 || code == 0x2029;
    if (!ends || keep_ends) line += end;
    if (ends) lines.push_back(std::exchange(line, ""));
  }
  if (!line.empty()) lines.push_back(line);
  return lines;
}

std::string replace(std::string_view text, std::string_view old_text, std::string_view new_text,
                    int64_t times) {
  std::string result;
  if (old_text.empty()) {  // between all characters, and at both ends
    for (const std::string& character : characters_of(text)) {
      if (times-- != 0) {
        result += new_text;
      } else {
        times = 0;
      }
      result += character;
    }
    return times != 0 ? result.append(new_text) : result;
  }
  const std::vector<std::string> parts = split(text, old_text, times, Side::left);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) result += new_text;
    result += parts[i];
  }
  return result;
}

std::string quote_as_python(std::string_view text) {
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  std::string result(1, quote);
  for (const std::string& character : characters_of(text)) {
    const Utf8Character decoded = decode_utf8(character);
    if (character == "\\" || character[0] == quote) {
      result += '\\' + character;
    } else if (character == "\n" || character == "\r" || character == "\t") {
      result += character == "\n" ? "\\n" : character == "\r" ? "\\r" : "\\t";
    } else if (decoded.valid && is_hidden(decoded.code)) {
      result += hexadecimal(decoded.code, /*python=*/true);
    } else {
      result += character;
    }
  }
  return result + quote;
}

std::string quote_as_json(std::string_view text, bool ensure_ascii) {
  constexpr std::string_view kPlain = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
  std::string result = "\"";
  for (const std::string& character : characters_of(text)) {
    const Utf8Character decoded = decode_utf8(character);
    if (const std::size_t at = kPlain.find(character[0]); at != kPlain.npos) {
      result += {'\\', kLetters[at]};
    } else if (decoded.valid && (decoded.code < 0x20 || (ensure_ascii && decoded.code > 0x7E))) {
      result += decoded.code == 0x7F ? character : hexadecimal(decoded.code, /*python=*/false);
    } else {
      result += character;
    }
  }
  return result + "\"";
}

std::string escape_html(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&#34;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

}  // namespace ee::tokenizer
