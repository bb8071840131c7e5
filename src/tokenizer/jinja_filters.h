// jinja2's filters and tests, and transformers' own tojson.
#pragma once

#include "jinja_values.h"

namespace ee::tokenizer {

// `args` begins with the value before the bar. A filter that is not here is a TemplateError that names it.
jinja::value apply_filter(const std::string& name, const jinja::func_args& args);

// `args` begins with the value before `is`.
bool apply_test(const std::string& name, const jinja::func_args& args);

}  // namespace ee::tokenizer
