// Python's rules for the values of llama.cpp's Jinja engine: what jinja2 gets from the language it is written
// in. Strings count in code points; a value printed, compared or iterated is what Python makes of it.
#pragma once

#include <jinja/runtime.h>

#include <string>
#include <string_view>
#include <vector>

#include "ee/base/error.h"

namespace ee::tokenizer {

// What a template does wrong or raises itself. Passes the engine's own error handling unchanged.
struct TemplateError : jinja::rethrown_exception {
  TemplateError(const std::string& message, bool raised = false)
      : jinja::rethrown_exception(message), raised_by_template(raised) {}
  bool raised_by_template;  // with raise_exception()
  std::size_t line = 0;     // 1-based, 0 while unknown
};

template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw TemplateError(fmt::format(format, std::forward<Args>(args)...));
}

// What map, select and their like return: can be walked once, is always true and has no length.
struct Generator : jinja::value_array_t {
  explicit Generator(std::vector<jinja::value> items) : value_array_t(std::move(items)) {}
  std::string type() const override { return "Generator"; }
  bool used = false;
};

// What the filter `safe` returns: adding other text to it would escape that text.
struct Markup : jinja::value_string_t {
  explicit Markup(const std::string& text) : value_string_t(text) {}
};

jinja::value make_string(const std::string& text);
jinja::value make_list(std::vector<jinja::value> items);
jinja::value make_int(int64_t number);
jinja::value make_bool(bool truth);
// `message` is the error of whoever uses it.
jinja::value make_undefined(const std::string& message);

bool is_string(const jinja::value& value);
bool is_integer(const jinja::value& value);  // not bool
bool is_float(const jinja::value& value);
bool is_bool(const jinja::value& value);
bool is_list(const jinja::value& value);  // lists and tuples, no generators
bool is_dict(const jinja::value& value);  // no namespaces
bool is_function(const jinja::value& value);
bool is_generator(const jinja::value& value);
std::string text_of(const jinja::value& string);

std::string python_type(const jinja::value& value);  // as type(value).__name__
std::string python_str(
    const jinja::value& value);  // as str(value); TemplateError for what has no stable text
std::string python_repr(const jinja::value& value);
bool python_truth(const jinja::value& value);
bool python_equal(const jinja::value& a, const jinja::value& b);
bool python_less(const jinja::value& a, const jinja::value& b);  // TemplateError if they have no order
bool python_contains(const jinja::value& container, const jinja::value& item);
int64_t python_length(const jinja::value& value);
// All that `for` would walk over. Uses up a generator.
std::vector<jinja::value> python_items(const jinja::value& value);
std::string python_json(const jinja::value& value, const jinja::func_args& options);  // the filter tojson

[[noreturn]] void fail_undefined(const jinja::value& value);

}  // namespace ee::tokenizer
