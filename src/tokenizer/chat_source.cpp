#include "chat_source.h"

#include <algorithm>

#include "ee/base/error.h"
#include "utf8.h"

namespace ee::tokenizer {
namespace {

bool is_space(uint32_t code) {  // Python's str.isspace()
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

}  // namespace

std::string_view strip(std::string_view text) {
  std::size_t first = std::string_view::npos, end = 0;  // of what is no space
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Character character = decode_utf8(text.substr(at));
    if (!character.valid || !is_space(character.code)) {
      first = std::min(first, at);
      end = at + character.length;
    }
    at += character.length;
  }
  return end == 0 ? std::string_view() : text.substr(first, end - first);
}

std::string after_thinking(const std::string& content) {
  constexpr std::string_view kEnd = "</think>";
  const std::size_t at = content.rfind(kEnd);
  if (at == std::string::npos) return content;
  const std::size_t start = content.find_first_not_of('\n', at + kEnd.size());
  return start == std::string::npos ? "" : content.substr(start);
}

ChatSource::ChatSource(std::string_view jinja_source) {
  for (std::size_t at = 0; at < jinja_source.size(); ++at) {
    const bool line_end = jinja_source.substr(at).starts_with("\\n");
    text_ += line_end ? '\n' : jinja_source[at];
    at += line_end;
  }
  trims_ = has("|trim") || has("| trim") || has(".strip()");
}

bool ChatSource::has_quoted(std::string_view text) const {
  const std::string inner(text);
  return has("'" + inner + "'") || has("\"" + inner + "\"");
}

std::string ChatSource::content(const std::string& content) const {
  return trims_ ? std::string(strip(content)) : content;
}

std::optional<std::string> ChatSource::literal_at(std::size_t quote) const {
  if (quote >= text_.size() || (text_[quote] != '\'' && text_[quote] != '"')) return {};
  std::string literal;
  for (std::size_t at = quote + 1; at < text_.size(); ++at) {
    if (text_[at] == text_[quote]) return literal;
    if (text_[at] == '\\' && at + 1 < text_.size()) ++at;
    literal += text_[at];
  }
  return {};
}

std::string ChatSource::between(std::string_view open, std::string_view close) const {
  const std::size_t start = text_.find(open);
  const std::size_t end = start == std::string::npos ? start : text_.find(close, start + open.size());
  if (end == std::string::npos)
    throw base::UserError("the model's chat template has no text behind '{}'", open);
  return text_.substr(start + open.size(), end - start - open.size());
}

std::string ChatSource::literal_after(std::string_view marker, std::size_t back) const {
  const std::size_t start = text_.find(marker);
  const auto literal = start == std::string::npos ? std::nullopt : literal_at(start + marker.size() - back);
  if (!literal) throw base::UserError("the model's chat template has no text behind '{}'", marker);
  return *literal;
}

std::string ChatSource::default_system(std::string_view open, std::string_view close) const {
  for (std::size_t at = text_.find(open); at != std::string::npos; at = text_.find(open, at + 1)) {
    // Between quotes, only a literal that goes on to `close` holds the whole message; outside, it is plain
    // text.
    const bool quoted = at > 0 && (text_[at - 1] == '\'' || text_[at - 1] == '"');
    const std::string inside = quoted ? literal_at(at - 1).value_or("") : text_.substr(at);
    const std::size_t end = inside.find(close);
    if (end == std::string::npos) continue;
    const std::string message = inside.substr(open.size(), end - open.size());
    if (message.find("{{") == std::string::npos && message.find("{%") == std::string::npos) return message;
  }
  constexpr std::string_view kAssignment = "set system_message = ";
  for (std::size_t at = text_.find(kAssignment); at != std::string::npos;
       at = text_.find(kAssignment, at + 1)) {
    if (const auto literal = literal_at(at + kAssignment.size()); literal && !literal->empty())
      return *literal;
  }
  return "";
}

}  // namespace ee::tokenizer
