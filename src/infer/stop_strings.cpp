#include "ee/infer/stop_strings.h"

#include <algorithm>
#include <utility>

#include "ee/base/error.h"

namespace ee::infer {

namespace {

// The length of the longest suffix of `text` that is a proper beginning of `stop`.
size_t begun(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.ends_with(stop.substr(0, length))) {
      return length;
    }
  }
  return 0;
}

}  // namespace

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  if (std::ranges::any_of(stops_, &std::string::empty)) {
    throw base::UserError("a stop string is empty, expected at least one character");
  }
}

std::string StopStrings::push(std::string_view bytes) {
  if (stopped_) {
    return "";
  }
  held_ += bytes;
  size_t end = std::string::npos;
  size_t hold = 0;
  for (const std::string& stop : stops_) {
    end = std::min(end, held_.find(stop));
    hold = std::max(hold, begun(held_, stop));
  }
  if (end != std::string::npos) {
    stopped_ = true;
    held_.resize(end);
    return std::exchange(held_, {});
  }
  std::string ready = held_.substr(0, held_.size() - hold);
  held_.erase(0, ready.size());
  return ready;
}

std::string StopStrings::finish() { return std::exchange(held_, {}); }

}  // namespace ee::infer
