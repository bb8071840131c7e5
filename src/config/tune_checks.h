#pragma once

#include "ee/config/tune_options.h"
#include "problems.h"

namespace ee::config {

// Limits of each option, then what options must be to each other. Options with a known problem are skipped.
void check_options(const TuneOptions& options, Problems& problems);

}  // namespace ee::config
