// One line at the bottom of a terminal; nothing at all when standard error is not one.
#pragma once

#include <cstdint>
#include <string_view>

namespace ee::train {

class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar() { clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(int64_t done, int64_t total, std::string_view text);
  void clear();  // before anything else is printed

 private:
  bool on_terminal_, shown_ = false;
};

}  // namespace ee::train
