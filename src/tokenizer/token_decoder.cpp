#include "token_decoder.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"

namespace ee::tokenizer {
namespace {

using base::UserError;

std::string replace_all(std::string_view text, const std::string& from, const std::string& to) {
  std::string result;
  for (std::size_t found; (found = text.find(from)) != std::string_view::npos;) {
    result.append(text.substr(0, found)).append(to);
    text.remove_prefix(found + from.size());
  }
  return result.append(text);
}

// The byte that "<0xHH>" stands for, or -1.
int fallback_byte(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling[5] != '>') return -1;
  int byte = -1;
  const char *begin = spelling.data() + 3, *end = begin + 2;
  const auto [last, error] = std::from_chars(begin, end, byte, 16);
  return error == std::errc() && last == end ? byte : -1;
}

}  // namespace

TokenDecoder::TokenDecoder(const nlohmann::json& description, const std::string& where) {
  if (description.is_null()) {
    throw UserError("{}: there is no decoder, so what a token's text is cannot be told", where);
  }
  add(description, where);
}

void TokenDecoder::add(const nlohmann::json& description, const std::string& where) {
  const std::string type = description.at("type");
  if (type == "Sequence") {
    for (const auto& inner : description.at("decoders")) add(inner, where);
  } else if (type == "Replace" && description.at("pattern").contains("String") && !fused_) {
    replacements_.emplace_back(description.at("pattern").at("String"), description.at("content"));
    if (replacements_.back().first.empty()) throw UserError("{}: the decoder replaces an empty text", where);
  } else if (type == "ByteFallback") {
    byte_fallback_ = true;
  } else if (type == "Fuse") {
    fused_ = true;
  } else if (type == "Strip") {
    add_strip(description, where);
  } else if (type == "Metaspace") {
    replacements_.emplace_back(description.at("replacement"), " ");
    if (description.value("prepend_scheme", "always") != "never") {
      first_spaces_ = FirstSpaces::all_of_first_token_dropped;
    }
  } else {
    throw UserError(
        "{}: the decoder {} is not supported here (expected Replace of a text, ByteFallback, Fuse, Strip, "
        "Metaspace or a Sequence of them)",
        where, description.dump());
  }
}

void TokenDecoder::add_strip(const nlohmann::json& description, const std::string& where) {
  const int64_t start = description.at("start"), stop = description.at("stop");
  if (start == 0 && stop == 0) return;
  if (description.at("content") != " " || start != 1 || stop != 0 || !fused_) {
    throw UserError(
        "{}: the decoder {} is not supported (expected to strip one space at the start, after Fuse)", where,
        description.dump());
  }
  first_spaces_ = FirstSpaces::one_dropped;
}

std::string TokenDecoder::bytes(std::string_view spelling) const {
  if (byte_fallback_) {
    if (const int byte = fallback_byte(spelling); byte >= 0) return std::string(1, static_cast<char>(byte));
  }
  std::string text(spelling);
  for (const auto& [from, to] : replacements_) text = replace_all(text, from, to);
  return text;
}

}  // namespace ee::tokenizer
