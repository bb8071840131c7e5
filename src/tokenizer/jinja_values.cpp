#include "jinja_values.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "python_text.h"

namespace ee::tokenizer {

using jinja::is_val;
using jinja::mk_val;
using jinja::value;

value make_string(const std::string& text) { return mk_val<jinja::value_string>(text); }
value make_list(std::vector<value> items) { return mk_val<jinja::value_array>(std::move(items)); }
value make_int(int64_t number) { return mk_val<jinja::value_int>(number); }
value make_bool(bool truth) { return mk_val<jinja::value_bool>(truth); }
value make_undefined(const std::string& message) { return mk_val<jinja::value_undefined>(message); }

bool is_string(const value& v) { return is_val<jinja::value_string>(v); }
bool is_integer(const value& v) { return is_val<jinja::value_int>(v); }
bool is_float(const value& v) { return is_val<jinja::value_float>(v); }
bool is_bool(const value& v) { return is_val<jinja::value_bool>(v); }
bool is_generator(const value& v) { return is_val<Generator>(v); }
bool is_list(const value& v) { return is_val<jinja::value_array>(v) && !is_generator(v); }
bool is_function(const value& v) { return is_val<jinja::value_func>(v); }
bool is_dict(const value& v) {
  const auto* object = jinja::cast_val<jinja::value_object>(v);
  return object != nullptr && object->has_builtins;
}
std::string text_of(const value& string) { return string->val_str.str(); }

void fail_undefined(const value& v) {
  const auto* undefined = jinja::cast_val<jinja::value_undefined>(v);
  throw TemplateError(undefined != nullptr && !undefined->hint.empty() ? undefined->hint
                                                                       : "a value is undefined");
}

std::string python_type(const value& v) {
  if (is_string(v)) return "str";
  if (is_bool(v)) return "bool";
  if (is_integer(v)) return "int";
  if (is_float(v)) return "float";
  if (v->is_none()) return "NoneType";
  if (v->is_undefined()) return "Undefined";
  if (is_generator(v)) return "generator";
  if (is_val<jinja::value_tuple>(v)) return "tuple";
  if (is_list(v)) return "list";
  if (is_dict(v)) return "dict";
  return is_function(v) ? "function" : "Namespace";
}

namespace {

std::string float_repr(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto scientific =
      std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::scientific);
  const std::string shortest(buffer, scientific.ptr);
  const int exponent = std::stoi(shortest.substr(shortest.find('e') + 1));
  if (exponent < -4 || exponent >= 16) return shortest;  // both write at least two digits of exponent
  const auto fixed = std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::fixed);
  const std::string text(buffer, fixed.ptr);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

std::string join_repr(const std::vector<value>& items) {
  std::string text;
  for (const value& item : items) text += (text.empty() ? "" : ", ") + python_repr(item);
  return text;
}

bool is_number(const value& v) { return is_integer(v) || is_float(v) || is_bool(v); }

double number_of(const value& v) { return v->val_flt; }

}  // namespace

std::string python_repr(const value& v) {
  if (is_string(v)) return quote_as_python(text_of(v));
  if (v->is_undefined()) return "Undefined";
  return python_str(v);
}

std::string python_str(const value& v) {
  if (is_string(v)) return text_of(v);
  if (v->is_undefined()) return "";
  if (v->is_none()) return "None";
  if (is_bool(v)) return v->as_bool() ? "True" : "False";
  if (is_integer(v)) return std::to_string(v->as_int());
  if (is_float(v)) return float_repr(v->as_float());
  if (is_val<jinja::value_tuple>(v)) {
    return "(" + join_repr(v->as_array()) + (v->as_array().size() == 1 ? ",)" : ")");
  }
  if (is_list(v)) return "[" + join_repr(v->as_array()) + "]";
  if (is_dict(v)) {
    std::string text;
    for (const auto& [key, item] : v->as_ordered_object()) {
      text += (text.empty() ? "" : ", ") + python_repr(key) + ": " + python_repr(item);
    }
    return "{" + text + "}";
  }
  fail("a {} is printed, which has no text", python_type(v));
}

bool python_truth(const value& v) {
  if (is_function(v) || is_generator(v)) return true;
  if (is_val<jinja::value_object>(v) && !is_dict(v)) return true;  // namespace, loop
  return v->as_bool();
}

bool python_equal(const value& a, const value& b) {
  if (is_number(a) && is_number(b)) return number_of(a) == number_of(b) && a->val_int == b->val_int;
  if (is_string(a) && is_string(b)) return text_of(a) == text_of(b);
  if (python_type(a) != python_type(b)) return false;
  if (a->is_none() || a->is_undefined() || a == b) return true;
  if (is_list(a)) {
    return std::ranges::equal(a->as_array(), b->as_array(), python_equal);
  }
  if (!is_dict(a) || a->as_ordered_object().size() != b->as_ordered_object().size()) return false;
  return std::ranges::all_of(a->as_ordered_object(), [&](const auto& entry) {
    value missing;
    const value& other = b->at(entry.first, missing);
    return other && python_equal(entry.second, other);
  });
}

bool python_less(const value& a, const value& b) {
  if (is_number(a) && is_number(b)) {
    return is_float(a) || is_float(b) ? number_of(a) < number_of(b) : a->val_int < b->val_int;
  }
  if (is_string(a) && is_string(b)) return text_of(a) < text_of(b);  // UTF-8 sorts as its code points
  if (a->is_undefined()) fail_undefined(a);
  if (b->is_undefined()) fail_undefined(b);
  if (!is_list(a) || python_type(a) != python_type(b)) {
    fail("'<' is not supported between '{}' and '{}'", python_type(a), python_type(b));
  }
  return std::ranges::lexicographical_compare(a->as_array(), b->as_array(), python_less);
}

bool python_contains(const value& container, const value& item) {
  if (is_string(container)) {
    if (item->is_undefined()) fail_undefined(item);
    if (!is_string(item)) {
      fail("'in <string>' requires string as left operand, not {}", python_type(item));
    }
    return text_of(container).find(text_of(item)) != std::string::npos;
  }
  if (is_dict(container)) return container->has_key(item);
  if (container->is_undefined()) return false;
  return std::ranges::any_of(python_items(container), [&](const value& v) { return python_equal(v, item); });
}

int64_t python_length(const value& v) {
  if (is_string(v)) return static_cast<int64_t>(characters_of(text_of(v)).size());
  if (is_list(v)) return static_cast<int64_t>(v->as_array().size());
  if (is_dict(v)) return static_cast<int64_t>(v->as_ordered_object().size());
  if (v->is_undefined()) return 0;
  fail("object of type '{}' has no len()", python_type(v));
}

std::vector<value> python_items(const value& v) {
  std::vector<value> items;
  if (is_list(v)) return v->as_array();
  if (is_generator(v)) {
    auto& generator = static_cast<Generator&>(*v);
    if (!std::exchange(generator.used, true)) items = generator.as_array();
  } else if (is_dict(v)) {
    for (const auto& [key, item] : v->as_ordered_object()) items.push_back(key);
  } else if (is_string(v)) {
    for (const std::string& character : characters_of(text_of(v))) items.push_back(make_string(character));
  } else if (!v->is_undefined()) {
    fail("'{}' object is not iterable", python_type(v));
  }
  return items;
}

}  // namespace ee::tokenizer
