#include "regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cctype>
#include <cstdint>
#include <new>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"

namespace ee::tokenizer {
namespace {

using base::UserError;

constexpr std::size_t kJitStackStart = 32 * 1024;
constexpr std::size_t kJitStackMost = 8 * 1024 * 1024;

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

// Walks over an Oniguruma pattern and writes PCRE2's spelling of it.
class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape();
        continue;
      }
      if (in_class_) {
        if (c == '[') refuse("a character class inside a character class");
        if (c == '&' && next() == '&') refuse("an intersection of character classes (&&)");
        if (c == ']') in_class_ = false;
      } else if (c == '[') {
        open_class();
        continue;
      } else if (c == '(' && next() == '?') {
        check_group();
      } else if (c == '{' && next() == ',') {
        refuse("a repetition without its least count");
      }
      copy(1);
    }
    return std::move(output_);
  }

 private:
  char next() const { return at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0'; }

  void copy(std::size_t count) {
    output_.append(pattern_.substr(at_, count));
    at_ += count;
  }

  void open_class() {
    in_class_ = true;
    copy(1);
    if (at_ < pattern_.size() && pattern_[at_] == '^') copy(1);
    if (at_ < pattern_.size() && pattern_[at_] == ']') refuse("a character class that begins with ]");
  }

  // Groups that mean the same in both: (?:  (?=  (?!  (?<=  (?<!  (?>  (?i)  (?i:
  void check_group() {
    const std::string_view rest = pattern_.substr(at_ + 2);
    for (const char* known : {":", "=", "!", "<=", "<!", ">", "i)", "i:"}) {
      if (rest.starts_with(known)) return;
    }
    refuse(fmt::format("the group (?{}", rest.substr(0, 2)));
  }

  void escape() {
    const char kind = next();
    switch (kind) {
      // Oniguruma's \s is White_Space; PCRE2's has U+180E besides.
      case 's':
        return replace(R"(\p{White_Space})");
      case 'S':
        return replace(R"(\P{White_Space})");
      case 'p':
      case 'P':
      case 'd':
      case 'D':
      case 'r':
      case 'n':
      case 't':
        return copy(2);
      case 'A':
      case 'z':
        if (!in_class_) return copy(2);
        break;
      case 'x':
        if (at_ + 2 < pattern_.size() && pattern_[at_ + 2] == '{') return copy(2);
        break;
      case 'u':
        if (at_ + 6 <= pattern_.size()) {
          output_ += fmt::format("\\x{{{}}}", pattern_.substr(at_ + 2, 4));
          at_ += 6;
          return;
        }
        break;
      default:
        if (std::ispunct(static_cast<unsigned char>(kind)) || kind == ' ') return copy(2);
    }
    refuse(fmt::format("the escape \\{}", kind));
  }

  void replace(std::string_view text) {
    output_ += text;
    at_ += 2;
  }

  [[noreturn]] void refuse(const std::string& feature) const {
    throw UserError("{}: the regular expression {} has {} at byte {}, which is not supported", where_,
                    pattern_, feature, at_);
  }

  std::string_view pattern_, where_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string output_;
};

}  // namespace

std::string pcre2_from_oniguruma(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).run();
}

struct Regex::Scratch::State {
  State()
      : match(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kJitStackStart, kJitStackMost, nullptr)) {
    if (match == nullptr || context == nullptr) throw std::bad_alloc();
    // Long runs of one kind of character are legal text; the limits are against runaway patterns.
    pcre2_set_match_limit(context, UINT32_MAX);
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~State() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }

  pcre2_match_data* match;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;  // null where PCRE2 has no JIT
};

Regex::Scratch::Scratch() : state_(std::make_unique<State>()) {}
Regex::Scratch::~Scratch() = default;

struct Regex::Compiled {
  Compiled(std::string_view pattern, uint32_t options, std::string_view shown, std::string_view where) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
    if (context == nullptr) throw std::bad_alloc();
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | options,
                         &error, &offset, context);
    pcre2_compile_context_free(context);
    if (code == nullptr) {
      throw UserError("{}: the regular expression {} is broken: {}", where, shown, error_text(error));
    }
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // an error leaves the interpreter, which is only slower
  }
  ~Compiled() { pcre2_code_free(code); }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;

  pcre2_code* code;
};

Regex::Regex(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
Regex::Regex(std::string_view pattern, std::string_view where)
    : Regex(std::make_unique<Compiled>(pcre2_from_oniguruma(pattern, where), PCRE2_UCP | PCRE2_MULTILINE,
                                       pattern, where)) {}
Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

Regex Regex::literal(std::string_view text, std::string_view where) {
  return Regex(std::make_unique<Compiled>(text, PCRE2_LITERAL, text, where));
}

Regex Regex::from_json(const nlohmann::json& pattern, std::string_view where) {
  if (!pattern.contains("String")) return Regex(pattern.at("Regex").get<std::string>(), where);
  const std::string text = pattern.at("String");
  if (text.empty()) throw UserError("{}: an empty text as a pattern is not supported", where);
  return literal(text, where);
}

std::optional<Regex::Match> Regex::find(std::string_view subject, std::size_t from, Scratch& scratch) const {
  Scratch::State& state = *scratch.state_;
  const auto match = [&](uint32_t options) {
    return pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), from,
                       PCRE2_NO_UTF_CHECK | options, state.match, state.context);
  };
  int result = match(0);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return {};
  if (result < 0) {
    throw UserError("the pre-tokenizer's regular expression failed on {} bytes of text: {}", subject.size(),
                    error_text(result));
  }
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state.match);
  return Match{offsets[0], offsets[1]};
}

}  // namespace ee::tokenizer
