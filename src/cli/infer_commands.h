// The commands of ee-infer. Each takes the arguments behind its name and returns the exit code.
#pragma once

#include <string>
#include <vector>

namespace ee::cli {

int run_generate(const std::vector<std::string>& args);
int run_score(const std::vector<std::string>& args);
int run_eval(const std::vector<std::string>& args);

}  // namespace ee::cli
