// JSON as this room uses it: keys keep their order, and nothing wrong passes silently.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace ee::config {

using Json = nlohmann::ordered_json;

enum class Comments { refused, allowed };  // // and /* */

// UserError naming `origin`: empty, not JSON (with line and column), not an object, or a key given twice.
Json parse_object(std::string_view text, std::string_view origin, Comments comments = Comments::refused);

// parse_object() of a whole file.
Json read_object(const std::filesystem::path& file);

// For messages: `text "two"`, `number 2.5`, `a list`.
std::string describe(const Json& value);

// Indented, with an end of line. The inverse of parse_object().
std::string print(const Json& value);

}  // namespace ee::config
