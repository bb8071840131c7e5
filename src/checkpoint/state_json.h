// state.json of a training checkpoint.
#pragma once

#include <filesystem>
#include <string>

#include "ee/checkpoint/training_state.h"

namespace ee::checkpoint {

std::string write_state(const TrainingState& state);
TrainingState read_state(const std::filesystem::path& file);  // UserError: names file and key

}  // namespace ee::checkpoint
