// The two kinds of error, and nothing else: a mistake that the user can mend, and a bug of ours.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace ee::base {

inline constexpr int kExitUserError = 2;
inline constexpr int kExitInternalError = 70;

// Something outside the program is wrong: a file, a key, a value, the machine. The message names what and
// where, what was expected and what was found, and the next step. Programs print it and end with exit code 2.
class UserError : public std::runtime_error {
 public:
  explicit UserError(const std::string& message) : std::runtime_error(message) {}

  template <typename... Args>
  UserError(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

// A broken promise inside the program. Thrown by EE_CHECK; programs end with exit code 70.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);

}  // namespace ee::base

// EE_CHECK(condition, "format {}", args...): our own invariants, never the user's input.
#define EE_CHECK(condition, ...)                                                            \
  do {                                                                                      \
    if (!(condition)) [[unlikely]]                                                          \
      ::ee::base::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (false)
