// Attributes, items and methods of values, as jinja2's sandbox looks them up for `a.b`, `a[b]` and `a[b:c]`.
#pragma once

#include "jinja_values.h"

namespace ee::tokenizer {

// `object.name`: what Python calls an attribute first, then the entry of that name. A method that would
// change its object is undefined, as in transformers' immutable sandbox; one that is not implemented is a
// TemplateError.
jinja::value get_attribute(const jinja::value& object, const std::string& name);

// `object[key]`: the entry first.
jinja::value get_item(const jinja::value& object, const jinja::value& key);

// `object[start:stop:step]`; null where left out.
jinja::value get_slice(const jinja::value& object, const jinja::value& start, const jinja::value& stop,
                       const jinja::value& step);

// A method bound to its object, null if the object's type has none of this name.
jinja::value find_method(const jinja::value& object, const std::string& name);

// TemplateError for the names that transformers keeps templates from storing in a namespace.
void check_namespace_key(const jinja::value& key);

// An argument by position or name; null if not given.
jinja::value argument(const jinja::func_args& args, std::size_t position, const std::string& name);

// `text % (a, b)` and the filter format: %s, %d and %%.
jinja::value format_percent(const std::string& text, const std::vector<jinja::value>& values);

}  // namespace ee::tokenizer
