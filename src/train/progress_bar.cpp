#include "progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace ee::train {

ProgressBar::ProgressBar() : on_terminal_(::isatty(STDERR_FILENO) != 0) {}

void ProgressBar::show(int64_t done, int64_t total, std::string_view text) {
  constexpr int64_t kWidth = 30;
  if (!on_terminal_) return;
  const auto filled = static_cast<size_t>(total > 0 ? kWidth * done / total : 0);
  fmt::print(stderr, "\r\033[K[{:=<{}}{: <{}}] {}", "", filled, "", kWidth - static_cast<int64_t>(filled),
             text);
  std::fflush(stderr);
  shown_ = true;
}

void ProgressBar::clear() {
  if (!shown_) return;
  fmt::print(stderr, "\r\033[K");
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace ee::train
