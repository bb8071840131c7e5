// JSON of files that others wrote: a name that appears twice in one object is an error, not a silent
// overwrite.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace ee::format {

// UserError("`where`: ...") on anything that is not one JSON value.
nlohmann::json parse_strict_json(std::string_view text, const std::string& where);

}  // namespace ee::format
