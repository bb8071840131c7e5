// tune.json from file to options and back. Precedence: defaults < file < --set.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "ee/config/tune_options.h"

namespace ee::config {

// Reads, applies each of `sets` ("optimizer.lr=3e-4"; the value is JSON, or else text) and validates.
// Comments
// (// and /* */) are allowed. One UserError lists everything that is wrong: unknown keys with the nearest
// known name, wrong types, values out of range, contradictions; bad JSON is reported with line and column.
TuneOptions read_tune_config(const std::filesystem::path& file, const std::vector<std::string>& sets);

// The same from text; `origin` names it in messages.
TuneOptions parse_tune_config(std::string_view json_text, std::string_view origin,
                              const std::vector<std::string>& sets);

// Every option with its value, as JSON. parse_tune_config() gives equal options back.
std::string print_tune_config(const TuneOptions& options);

// Limits of each option and what the options must be to each other. UserError with all problems.
void validate(const TuneOptions& options, std::string_view origin);

// A Markdown table of all options: key, type, default, meaning.
std::string tune_reference_markdown();

}  // namespace ee::config
