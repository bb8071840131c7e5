// jinja2's rules for statements and expressions, where llama.cpp's engine has rules of its own.
#pragma once

#include "jinja_values.h"

namespace ee::tokenizer {

// Puts nodes that follow jinja2 in the place of the engine's: printing, look-ups, operators, calls, filters,
// tests, conditions, loops, assignments and macros. Literals stay the engine's own.
void follow_jinja2(jinja::statements& body);

// Runs statements one after the other; what they print. TemplateError with the line.
std::string run_body(const jinja::statements& body, jinja::context& scope);

}  // namespace ee::tokenizer
