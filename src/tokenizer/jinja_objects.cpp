#include "jinja_objects.h"

#include <algorithm>

#include "python_text.h"

namespace ee::tokenizer {

using jinja::mk_val;
using jinja::value;

namespace {

value find_item(const value& object, const value& key) {
  value missing;
  if (jinja::is_val<jinja::value_object>(object)) return object->at(key, missing);
  if (!is_integer(key) && !is_bool(key)) return missing;
  if (is_list(object)) return object->at(key, missing);
  if (!is_string(object)) return missing;
  const std::vector<std::string> all = characters_of(text_of(object));
  const int64_t size = static_cast<int64_t>(all.size());
  const int64_t at = key->val_int < 0 ? key->val_int + size : key->val_int;
  return at < 0 || at >= size ? missing : make_string(all[static_cast<std::size_t>(at)]);
}

std::string describe(const value& object) {
  return object->is_none() ? "None" : python_type(object) + " object";
}

value missing_attribute(const value& object, const std::string& name) {
  return make_undefined(fmt::format("'{}' has no attribute '{}'", describe(object), name));
}

}  // namespace

void check_namespace_key(const value& key) {
  if (is_string(key) && text_of(key).starts_with('_')) {
    fail("a namespace cannot store {}: its name begins with an underscore", python_repr(key));
  }
}

value get_attribute(const value& object, const std::string& name) {
  if (object->is_undefined()) fail_undefined(object);
  if (value method = find_method(object, name)) return method;
  if (value item = find_item(object, make_string(name))) return item;
  return missing_attribute(object, name);
}

value get_item(const value& object, const value& key) {
  if (object->is_undefined()) fail_undefined(object);
  if (key->is_undefined() && is_dict(object)) return make_undefined("dict object has no element Undefined");
  if (value item = find_item(object, key)) return item;
  if (!is_string(key)) {
    return make_undefined(fmt::format("{} has no element {}", describe(object), python_repr(key)));
  }
  if (value method = find_method(object, text_of(key))) return method;
  return missing_attribute(object, text_of(key));
}

value get_slice(const value& object, const value& start, const value& stop, const value& step) {
  if (object->is_undefined()) fail_undefined(object);
  if (!is_string(object) && !is_list(object)) {
    return make_undefined(fmt::format("{} has no slices", describe(object)));
  }
  const auto bound = [](const value& v, int64_t otherwise) {
    if (!v || v->is_none()) return otherwise;
    if (!is_integer(v)) fail("slice indices must be integers or None");
    return v->as_int();
  };
  const std::vector<value> items = python_items(object);
  const int64_t size = static_cast<int64_t>(items.size()), by = bound(step, 1);
  if (by == 0) fail("slice step cannot be zero");
  const int64_t lowest = by > 0 ? 0 : -1, highest = by > 0 ? size : size - 1;
  const auto place = [&](const value& v, int64_t otherwise) {
    int64_t at = bound(v, otherwise);
    if (at < 0 && v && !v->is_none()) at += size;
    return std::clamp(at, lowest, highest);
  };
  const int64_t first = place(start, by > 0 ? 0 : size - 1), end = place(stop, by > 0 ? size : -1);
  std::vector<value> chosen;
  for (int64_t i = first; by > 0 ? i < end : i > end; i += by) {
    chosen.push_back(items[static_cast<std::size_t>(i)]);
  }
  if (jinja::is_val<jinja::value_tuple>(object)) return mk_val<jinja::value_tuple>(std::move(chosen));
  if (is_list(object)) return make_list(std::move(chosen));
  std::string text;
  for (const value& item : chosen) text += text_of(item);
  return make_string(text);
}

}  // namespace ee::tokenizer
