// Renders a Jinja template as transformers does: jinja2's immutable sandbox with trim_blocks and
// lstrip_blocks, loop controls, generation blocks, raise_exception, strftime_now and tojson. llama.cpp's
// engine reads the template; the rules that it has of its own are replaced (jinja_nodes.h).
#pragma once

#include <ctime>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace ee::tokenizer {

// `variables` is an object of what the template may name; `now` is the time that strftime_now() formats,
// local time. UserError with the template's own message, or with what is wrong in which of its lines.
std::string render_jinja(const std::string& source, const nlohmann::ordered_json& variables, std::time_t now);

}  // namespace ee::tokenizer
