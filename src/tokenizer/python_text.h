// Python's operations on text, in UTF-8: what str.strip(), str.upper(), repr() and json.dumps() do.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ee::tokenizer {

// One string for each code point; a byte that is not UTF-8 stands alone.
std::vector<std::string> characters_of(std::string_view text);

bool is_python_space(std::string_view character);

enum class Side { left, right, both };
// Takes white space, or any of `characters`, off the ends.
std::string strip(std::string_view text, Side side = Side::both,
                  const std::optional<std::string>& characters = {});

// Simple case mappings and ß, which becomes SS; no other character grows here.
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);

std::vector<std::string> split_at_space(std::string_view text);
// At most `times` cuts (-1: all), counted from the left or the right. `separator` is not empty.
std::vector<std::string> split(std::string_view text, std::string_view separator, int64_t times, Side from);
std::vector<std::string> split_lines(std::string_view text, bool keep_ends);

// At most `times` replacements (-1: all).
std::string replace(std::string_view text, std::string_view old_text, std::string_view new_text,
                    int64_t times);

std::string quote_as_python(std::string_view text);                   // repr()
std::string quote_as_json(std::string_view text, bool ensure_ascii);  // json.dumps()
std::string escape_html(std::string_view text);                       // markupsafe.escape()

}  // namespace ee::tokenizer
