// The third kind of error beside those of error.h: neither the user's mistake nor ours.
#pragma once

#include <stdexcept>

namespace ee::base {

inline constexpr int kExitTemporaryFailure = 75;  // EX_TEMPFAIL of sysexits.h

// Something that the run depends on went away, a rank or a machine. Programs print the message and end with
// exit code 75: starting again may be all it takes, and a launcher may do so.
class TemporaryFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace ee::base
