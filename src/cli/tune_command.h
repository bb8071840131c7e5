// The commands of ee-tune.
#pragma once

#include <string>
#include <vector>

namespace ee::cli {

int run_tune(const std::vector<std::string>& args);
int run_tune_prepare(const std::vector<std::string>& args);
int run_calibrate(const std::vector<std::string>& args);
int run_tune_reference(const std::vector<std::string>& args);

}  // namespace ee::cli
