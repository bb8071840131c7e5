// Regular expressions of pre-tokenizers: written for Oniguruma (which Hugging Face's library uses), run by
// PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace ee::tokenizer {

class Regex {
 public:
  // What one thread needs while matching; any number of Regex objects can share it, one after the other.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Regex;
    struct State;
    std::unique_ptr<State> state_;
  };

  struct Match {
    std::size_t begin, end;  // bytes into the subject
  };

  // UserError with `where` (file and key) if the pattern is wrong or uses what PCRE2 would read differently.
  Regex(std::string_view oniguruma_pattern, std::string_view where);
  static Regex literal(std::string_view text, std::string_view where);
  // tokenizer.json's {"String": <text>} or {"Regex": <pattern>}.
  static Regex from_json(const nlohmann::json& pattern, std::string_view where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // The first match at or after `from`. `subject` must be valid UTF-8. Thread-safe, given one scratch a
  // thread.
  std::optional<Match> find(std::string_view subject, std::size_t from, Scratch& scratch) const;

 private:
  struct Compiled;
  explicit Regex(std::unique_ptr<Compiled> compiled);
  std::unique_ptr<Compiled> compiled_;
};

// The pattern in PCRE2's language. Exposed for tests.
std::string pcre2_from_oniguruma(std::string_view pattern, std::string_view where);

}  // namespace ee::tokenizer
