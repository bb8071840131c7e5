// Everything that is wrong with one file, collected to be reported at once.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ee::config {

class Problems {
 public:
  explicit Problems(std::string_view origin) : origin_(origin) {}

  // `path` is the option, "optimizer.lr" or "exits[2].kind"; "" for the file as a whole.
  void add(const std::string& path, const std::string& text);

  // Where the options being read come from, put in front of their paths: "" for the file, "--set ".
  void set_source(std::string_view source) { source_ = source; }

  // True if a problem with this option, a part of it or the section around it is known already.
  bool mentions(const std::string& path) const;

  void throw_if_any() const;  // UserError

 private:
  struct Problem {
    std::string path, message;
  };
  std::string origin_, source_;
  std::vector<Problem> problems_;
};

// " (did you mean x?)" or "".
std::string did_you_mean(std::string_view name);

}  // namespace ee::config
