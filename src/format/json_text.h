// JSON of files that others wrote.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace ee::format {

// UserError("`where`: ...") on anything that is not one JSON value.
nlohmann::json parse_json(std::string_view text, const std::string& where);

// The same, and a name that appears twice in one object is a UserError, not a silent overwrite.
nlohmann::json parse_strict_json(std::string_view text, const std::string& where);

}  // namespace ee::format
