#include "ee/base/program.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

#include "ee/base/error.h"
#include "ee/base/temporary_failure.h"
#include "version.h"

namespace ee::base {

namespace {

// A signal handler can reach nothing but an object of static storage; StopSignal is its only user.
std::atomic<int> received_signal{0};

extern "C" void on_stop_signal(int number) {
  if (received_signal.exchange(number) != 0) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
}

}  // namespace

int run_program(const char* name, const std::function<int()>& body) {
  try {
    return body();
  } catch (const UserError& error) {
    fmt::print(stderr, "{}: error: {}\n", name, error.what());
    return kExitUserError;
  } catch (const TemporaryFailure& error) {
    fmt::print(stderr, "{}: error: {}\n", name, error.what());
    return kExitTemporaryFailure;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "{}: error: out of memory\n", name);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: internal error: {}\n", name, error.what());
  }
  return kExitInternalError;
}

std::string version() { return fmt::format("{} ({})", kVersion, kRevision); }

StopSignal::StopSignal() {
  received_signal = 0;
  std::signal(SIGINT, on_stop_signal);
  std::signal(SIGTERM, on_stop_signal);
}

StopSignal::~StopSignal() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

int StopSignal::number() const { return received_signal; }

}  // namespace ee::base
