// The subcommands of ee-convert.
#pragma once

#include <string>
#include <vector>

namespace ee::cli {

int convert_create(const std::vector<std::string>& args);
int convert_attach(const std::vector<std::string>& args);
int convert_move(const std::vector<std::string>& args);
int convert_inspect(const std::vector<std::string>& args);
int convert_verify(const std::vector<std::string>& args);

}  // namespace ee::cli
