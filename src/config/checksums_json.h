// The key "checksums" of ee_config.json.
#pragma once

#include "ee/config/exit_spec.h"
#include "json_text.h"
#include "problems.h"

namespace ee::config {

inline constexpr const char* kChecksumsKey = "checksums";

Json write_checksums(const Checksums& checksums);

// Takes the key out of `file`. What is missing, of another type, or not what the digest says is a problem.
Checksums take_checksums(Json& file, Problems& problems);

}  // namespace ee::config
