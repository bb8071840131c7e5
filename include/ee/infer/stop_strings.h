// Ends a text at the first stop string, and holds back what may become one while it streams.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ee::infer {

class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops);  // UserError: an empty stop string

  // Returns the bytes that are certain to come before any stop string. After stopped() nothing more comes.
  std::string push(std::string_view bytes);
  std::string finish();  // what was held back, once no more text comes
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace ee::infer
