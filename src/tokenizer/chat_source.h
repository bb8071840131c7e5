// Looks into the Jinja source of a chat template for what its family leaves open: spaces, trimming, a default
// system message. No Jinja is run.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ee::tokenizer {

class ChatSource {
 public:
  explicit ChatSource(std::string_view jinja_source);

  // All look-ups take \n in a string literal for a line's end.
  bool has(std::string_view text) const { return text_.find(text) != std::string::npos; }
  bool has_quoted(std::string_view text) const;  // as a whole string literal

  // What a message's content becomes: white space around it is removed if the template does so.
  std::string content(const std::string& content) const;

  // The system message that the template brings along for conversations without one: a literal between `open`
  // and `close`, or assigned to system_message. "" if there is none.
  std::string default_system(std::string_view open, std::string_view close) const;

  // The first text between the two. UserError if there is none.
  std::string between(std::string_view open, std::string_view close) const;
  // The string literal that starts `back` characters before the end of `marker`'s first occurrence. UserError
  // if there is none.
  std::string literal_after(std::string_view marker, std::size_t back = 0) const;

 private:
  std::optional<std::string> literal_at(std::size_t quote) const;

  std::string text_;  // the source with the escapes of line ends resolved
  bool trims_ = false;
};

// As Python's str.strip().
std::string_view strip(std::string_view text);

// What Qwen3's template keeps of an earlier answer: what stands behind its last </think>.
std::string after_thinking(const std::string& content);

}  // namespace ee::tokenizer
