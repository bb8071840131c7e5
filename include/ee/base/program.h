// What the three programs share around their work: errors to exit codes, signals, version.
#pragma once

#include <functional>
#include <string>

namespace ee::base {

// Runs `body`, prints what escapes from it to standard error and returns the exit code: body's own, 2 for
// UserError, 70 for anything else.
int run_program(const char* name, const std::function<int()>& body);

// "0.1.0 (revision)"
std::string version();

// While one lives, SIGINT and SIGTERM only set a flag, so that the work can save and stop between two steps.
// A second signal ends the process at once.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool requested() const { return number() != 0; }
  int number() const;                               // 0 or the signal that came
  int exit_code() const { return 128 + number(); }  // the shell's convention
};

}  // namespace ee::base
