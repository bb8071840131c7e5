// Operations under way: transfers that the backend carries, and what follows when they have arrived.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <vector>

namespace ee::comm {

// The backend's own message, without its backtrace.
class BackendError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Result { kDone, kInterrupted, kTimedOut };

// One work of c10d: a message of Gloo's, or any operation of NCCL's.
class Transfer {
 public:
  struct Impl;
  explicit Transfer(std::unique_ptr<Impl> impl);
  Transfer(Transfer&&) noexcept;
  Transfer& operator=(Transfer&&) noexcept;
  ~Transfer();

  // Once. BackendError when the backend reports one.
  Result wait(std::chrono::milliseconds limit);
  void interrupt();  // from any thread, also before wait(): makes it return soon

 private:
  std::unique_ptr<Impl> impl_;
};

class Pending {
 public:
  // `then` runs when all transfers are done, in wait(); what it returns is waited for as well.
  using Transfers = std::vector<Transfer>;
  using Step = std::function<Transfers()>;
  explicit Pending(Transfers transfers, Step then = {})
      : state_(std::make_unique<State>()), then_(std::move(then)) {
    state_->transfers = std::move(transfers);
  }

  Result wait(std::chrono::milliseconds limit);  // once; BackendError
  void interrupt();                              // from any thread, also before wait(): makes it return soon

 private:
  struct State {
    std::mutex mutex;  // of an interruption against the next step's transfers
    Transfers transfers;
    bool interrupted = false;
  };
  std::unique_ptr<State> state_;
  Step then_;
};

}  // namespace ee::comm
