// One line of the reference for each declared option of ee-tune.
#pragma once

#include <string>
#include <vector>

namespace ee::config {

struct OptionLine {
  std::string path;  // "exits.overrides[].weight"
  std::string type;  // "integer >= 1"
  std::string default_value;
  std::string meaning;
};

std::vector<OptionLine> tune_option_lines();

}  // namespace ee::config
