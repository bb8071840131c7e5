// json.dumps(), as the filter tojson that transformers gives to chat templates.
#include <algorithm>
#include <cmath>

#include "jinja_objects.h"
#include "jinja_values.h"
#include "python_text.h"

namespace ee::tokenizer {

using jinja::value;

namespace {

class JsonWriter {
 public:
  explicit JsonWriter(const jinja::func_args& options) {
    const auto given = [&](std::size_t position, const char* name) {
      const value option = argument(options, position, name);
      return option && option->is_none() ? nullptr : option;
    };
    if (const value ascii = given(1, "ensure_ascii")) ensure_ascii_ = python_truth(ascii);
    if (const value indent = given(2, "indent")) {
      indent_ = is_string(indent)
                    ? text_of(indent)
                    : std::string(static_cast<std::size_t>(std::max<int64_t>(indent->as_int(), 0)), ' ');
      item_separator_ = ",";
    }
    if (const value separators = given(3, "separators")) {
      const std::vector<value> both = python_items(separators);
      if (both.size() != 2) fail("tojson wants two separators");
      item_separator_ = python_str(both[0]);
      key_separator_ = python_str(both[1]);
    }
    if (const value sort = given(4, "sort_keys")) sort_keys_ = python_truth(sort);
  }

  std::string write(const value& v, std::size_t depth = 0) const {
    if (is_string(v)) return quote_as_json(text_of(v), ensure_ascii_);
    if (v->is_none()) return "null";
    if (is_bool(v)) return v->as_bool() ? "true" : "false";
    if (is_float(v) && std::isnan(v->as_float())) return "NaN";
    if (is_float(v) && std::isinf(v->as_float())) return v->as_float() < 0 ? "-Infinity" : "Infinity";
    if (is_integer(v) || is_float(v)) return python_str(v);
    std::vector<std::string> parts;
    if (is_list(v)) {
      for (const value& item : v->as_array()) parts.push_back(write(item, depth + 1));
      return enclose("[", parts, "]", depth);
    }
    if (!is_dict(v)) fail("Object of type {} is not JSON serializable", python_type(v));
    auto entries = v->as_ordered_object();
    if (sort_keys_) {
      std::ranges::stable_sort(entries, python_less, [](const auto& entry) { return entry.first; });
    }
    for (const auto& [key, item] : entries) {
      const std::string name = is_string(key) ? text_of(key) : write(key);
      parts.push_back(quote_as_json(name, ensure_ascii_) + key_separator_ + write(item, depth + 1));
    }
    return enclose("{", parts, "}", depth);
  }

 private:
  std::string enclose(const char* open, const std::vector<std::string>& parts, const char* close,
                      std::size_t depth) const {
    std::string text = open;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      text += (i > 0 ? item_separator_ : "") + new_line(depth + 1) + parts[i];
    }
    return text + (parts.empty() ? "" : new_line(depth)) + close;
  }

  std::string new_line(std::size_t depth) const {
    if (!indent_) return "";
    std::string text = "\n";
    for (std::size_t i = 0; i < depth; ++i) text += *indent_;
    return text;
  }

  bool ensure_ascii_ = false, sort_keys_ = false;
  std::optional<std::string> indent_;
  std::string item_separator_ = ", ", key_separator_ = ": ";
};

}  // namespace

std::string python_json(const value& v, const jinja::func_args& options) {
  return JsonWriter(options).write(v);
}

}  // namespace ee::tokenizer
