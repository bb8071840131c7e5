// Python's operators on two values.
#pragma once

#include "jinja_values.h"

namespace ee::tokenizer {

// + - * / %, also of texts and lists where Python has it. TemplateError if not.
jinja::value arithmetic(char op, const jinja::value& a, const jinja::value& b);

bool is_comparison(const std::string& op);
// == != < > <= >= in, and "not in".
bool compare(const std::string& op, const jinja::value& a, const jinja::value& b);

}  // namespace ee::tokenizer
