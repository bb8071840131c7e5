#include "pending.h"

#include <algorithm>

namespace ee::comm {

Result Pending::wait(std::chrono::milliseconds limit) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + limit;
  for (;;) {
    for (auto& transfer : state_->transfers) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
      const Result result = transfer.wait(std::max(left, std::chrono::milliseconds(1)));
      if (result != Result::kDone) return result;
    }
    const Step then = std::move(then_);
    then_ = nullptr;
    Transfers next = then ? then() : Transfers{};
    const std::lock_guard lock(state_->mutex);
    if (next.empty()) return Result::kDone;
    if (state_->interrupted) return Result::kInterrupted;
    state_->transfers = std::move(next);
  }
}

void Pending::interrupt() {
  const std::lock_guard lock(state_->mutex);
  state_->interrupted = true;
  for (auto& transfer : state_->transfers) transfer.interrupt();
}

}  // namespace ee::comm
