#include <algorithm>
#include <map>
#include <utility>

#include "jinja_objects.h"
#include "python_text.h"

namespace ee::tokenizer {

using jinja::func_args;
using jinja::mk_val;
using jinja::value;

namespace {

using Method = value (*)(const func_args&);  // argument 0 is the object
using Methods = std::map<std::string, Method>;

std::string self_text(const func_args& args) { return text_of(args.get_args().at(0)); }

std::string text_argument(const func_args& args, std::size_t position, const std::string& name) {
  const value given = argument(args, position, name);
  if (!given) fail("{}() misses an argument", args.func_name);
  if (given->is_undefined()) fail_undefined(given);
  if (!is_string(given)) fail("{}() wants text, not {}", args.func_name, python_type(given));
  return text_of(given);
}

int64_t count_argument(const func_args& args, std::size_t position, const std::string& name) {
  const value given = argument(args, position, name);
  if (!given) return -1;
  if (!is_integer(given)) fail("{}() wants a whole number, not {}", args.func_name, python_type(given));
  return given->as_int();
}

void allow_arguments(const func_args& args, std::size_t most) {  // the object counts
  if (args.count() > most) fail("{}() with {} arguments is not supported", args.func_name, args.count() - 1);
}

std::vector<value> as_values(const std::vector<std::string>& texts) {
  std::vector<value> values;
  for (const std::string& text : texts) values.push_back(make_string(text));
  return values;
}

value tuple_of(std::vector<value> items) { return mk_val<jinja::value_tuple>(std::move(items)); }

template <Side side>
value method_strip(const func_args& args) {
  allow_arguments(args, 2);
  const value characters = argument(args, 1, "chars");
  if (!characters || characters->is_none()) return make_string(strip(self_text(args), side));
  return make_string(strip(self_text(args), side, text_argument(args, 1, "chars")));
}

template <Side side>
value method_split(const func_args& args) {
  allow_arguments(args, 3);
  const value separator = argument(args, 1, "sep");
  const int64_t times = count_argument(args, 2, "maxsplit");
  if (!separator || separator->is_none()) {
    if (times >= 0) fail("{}() at white space with maxsplit is not supported", args.func_name);
    return make_list(as_values(split_at_space(self_text(args))));
  }
  const std::string text = text_argument(args, 1, "sep");
  if (text.empty()) fail("empty separator");
  return make_list(as_values(split(self_text(args), text, times, side)));
}

template <Side side>
value method_partition(const func_args& args) {
  allow_arguments(args, 2);
  const std::string text = self_text(args), separator = text_argument(args, 1, "sep");
  const std::vector<std::string> parts = split(text, separator, 1, side);
  if (parts.size() == 2) return tuple_of(as_values({parts[0], separator, parts[1]}));
  return tuple_of(as_values(side == Side::left ? std::vector<std::string>{text, "", ""}
                                               : std::vector<std::string>{"", "", text}));
}

template <bool at_start>
value method_affix(const func_args& args) {
  allow_arguments(args, 2);
  const std::string text = self_text(args);
  const value given = argument(args, 1, "prefix");
  const auto fits = [&](const value& v) {
    if (!is_string(v)) fail("{}() wants text, not {}", args.func_name, python_type(v));
    return at_start ? text.starts_with(text_of(v)) : text.ends_with(text_of(v));
  };
  if (given && is_list(given)) return make_bool(std::ranges::any_of(given->as_array(), fits));
  text_argument(args, 1, "prefix");
  return make_bool(fits(given));
}

template <bool at_start>
value method_remove_affix(const func_args& args) {
  std::string text = self_text(args);
  const std::string affix = text_argument(args, 1, "prefix");
  if (at_start ? text.starts_with(affix) : text.ends_with(affix)) {
    text.erase(at_start ? 0 : text.size() - affix.size(), affix.size());
  }
  return make_string(text);
}

template <bool from_left>
value method_find(const func_args& args) {
  allow_arguments(args, 2);
  const std::string text = self_text(args), wanted = text_argument(args, 1, "sub");
  const std::size_t at = from_left ? text.find(wanted) : text.rfind(wanted);
  if (at == std::string::npos) return make_int(-1);
  return make_int(static_cast<int64_t>(characters_of(std::string_view(text).substr(0, at)).size()));
}

value method_count(const func_args& args) {
  allow_arguments(args, 2);
  const std::string wanted = text_argument(args, 1, "sub");
  if (wanted.empty()) return make_int(python_length(args.get_args()[0]) + 1);
  return make_int(static_cast<int64_t>(split(self_text(args), wanted, -1, Side::left).size()) - 1);
}

value method_replace(const func_args& args) {
  allow_arguments(args, 4);
  return make_string(replace(self_text(args), text_argument(args, 1, "old"), text_argument(args, 2, "new"),
                             count_argument(args, 3, "count")));
}

value method_join(const func_args& args) {
  std::string text;
  const value given = argument(args, 1, "iterable");
  if (!given) fail("join() misses an argument");
  bool first = true;
  for (const value& item : python_items(given)) {
    if (!is_string(item)) fail("join() found {} where it expected text", python_type(item));
    text += (std::exchange(first, false) ? "" : self_text(args)) + text_of(item);
  }
  return make_string(text);
}

// {}, {0} and {name}; a format or conversion is refused.
value method_format(const func_args& args) {
  const std::string text = self_text(args);
  std::string result;
  std::size_t next = 1;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if ((c == '{' || c == '}') && at + 1 < text.size() && text[at + 1] == c) {
      result += text[++at];
      continue;
    }
    if (c == '}') fail("format() found a single '}}'");
    if (c != '{') {
      result += c;
      continue;
    }
    const std::size_t end = text.find('}', at);
    if (end == std::string::npos) fail("format() found a single '{{'");
    const std::string field = text.substr(at + 1, end - at - 1);
    if (field.find_first_of(".[:!{") != std::string::npos) fail("format() of {{{}}} is not supported", field);
    const bool counted = field.find_first_not_of("0123456789") == std::string::npos;
    const std::size_t position = !counted ? 0 : field.empty() ? next++ : 1 + std::stoul(field);
    const value given = counted ? argument(args, position, "") : args.get_kwarg(field, value());
    if (!given) fail("format() has no argument for {{{}}}", field);
    result += python_str(given);
    at = end;
  }
  return make_string(result);
}

template <std::string (*change)(std::string_view)>
value method_text(const func_args& args) {
  allow_arguments(args, 1);
  return make_string(change(self_text(args)));
}

template <bool (*holds)(std::string_view)>
value method_all(const func_args& args) {
  const std::vector<std::string> all = characters_of(self_text(args));
  return make_bool(!all.empty() && std::ranges::all_of(all, holds));
}

bool is_ascii_digit(std::string_view c) { return c.size() == 1 && c[0] >= '0' && c[0] <= '9'; }

bool is_digit(std::string_view c) {
  if (c.size() > 1) fail("isdigit() of characters beyond ASCII is not supported");
  return is_ascii_digit(c);
}

value method_splitlines(const func_args& args) {
  const value keep = argument(args, 1, "keepends");
  return make_list(as_values(split_lines(self_text(args), keep && python_truth(keep))));
}

const Methods& text_methods() {
  static const Methods methods = {
      {"capitalize", method_text<capitalize>},
      {"count", method_count},
      {"endswith", method_affix<false>},
      {"find", method_find<true>},
      {"format", method_format},
      {"isdigit", method_all<is_digit>},
      {"isspace", method_all<is_python_space>},
      {"join", method_join},
      {"lower", method_text<lower>},
      {"lstrip", method_strip<Side::left>},
      {"partition", method_partition<Side::left>},
      {"removeprefix", method_remove_affix<true>},
      {"removesuffix", method_remove_affix<false>},
      {"replace", method_replace},
      {"rfind", method_find<false>},
      {"rpartition", method_partition<Side::right>},
      {"rsplit", method_split<Side::right>},
      {"rstrip", method_strip<Side::right>},
      {"split", method_split<Side::left>},
      {"splitlines", method_splitlines},
      {"startswith", method_affix<true>},
      {"strip", method_strip<Side::both>},
      {"upper", method_text<upper>},
  };
  return methods;
}

value dict_items(const func_args& args) {
  std::vector<value> items;
  for (const auto& [key, item] : args.get_args().at(0)->as_ordered_object()) {
    items.push_back(tuple_of({key, item}));
  }
  return make_list(std::move(items));
}

value dict_values(const func_args& args) {
  std::vector<value> items;
  for (const auto& [key, item] : args.get_args().at(0)->as_ordered_object()) items.push_back(item);
  return make_list(std::move(items));
}

value dict_keys(const func_args& args) { return make_list(python_items(args.get_args().at(0))); }

value dict_get(const func_args& args) {
  const value key = argument(args, 1, ""), fallback = argument(args, 2, "");
  if (!key) fail("get() misses an argument");
  value otherwise = fallback ? fallback : mk_val<jinja::value_none>();
  return args.get_args()[0]->at(key, otherwise);
}

value dict_copy(const func_args& args) {
  value self = args.get_args().at(0);
  return mk_val<jinja::value_object>(self);
}

value list_index(const func_args& args) {
  allow_arguments(args, 2);
  const value wanted = argument(args, 1, "");
  const auto& items = args.get_args()[0]->as_array();
  const auto found =
      std::ranges::find_if(items, [&](const value& item) { return python_equal(item, wanted); });
  if (found == items.end()) fail("{} is not in list", python_repr(wanted));
  return make_int(found - items.begin());
}

value list_count(const func_args& args) {
  const value wanted = argument(args, 1, "");
  return make_int(std::ranges::count_if(args.get_args()[0]->as_array(),
                                        [&](const value& item) { return python_equal(item, wanted); }));
}

const Methods& dict_methods() {
  static const Methods methods = {{"copy", dict_copy},
                                  {"get", dict_get},
                                  {"items", dict_items},
                                  {"keys", dict_keys},
                                  {"values", dict_values}};
  return methods;
}

const Methods& list_methods() {
  static const Methods methods = {{"count", list_count}, {"index", list_index}};
  return methods;
}

const Methods& methods_of(const value& object) {
  static const Methods none;
  return is_string(object) ? text_methods()
         : is_list(object) ? list_methods()
         : is_dict(object) ? dict_methods()
                           : none;
}

// Python's other methods of the type, which must not pass for missing.
bool is_known_method(const value& object, std::string_view name) {
  constexpr std::string_view kText =
      " casefold center encode expandtabs format_map index isalnum isalpha isascii isdecimal isidentifier "
      "islower "
      "isnumeric isprintable istitle isupper ljust maketrans rindex rjust swapcase title translate zfill ";
  return is_string(object) && kText.find(fmt::format(" {} ", name)) != kText.npos;
}

bool changes_its_object(const value& object, std::string_view name) {
  constexpr std::string_view kList = " append clear extend insert pop remove reverse sort ",
                             kDict = " clear pop popitem setdefault update ";
  const std::string_view names = is_list(object) ? kList : is_dict(object) ? kDict : "";
  return names.find(fmt::format(" {} ", name)) != names.npos;
}

}  // namespace

value argument(const func_args& args, std::size_t position, const std::string& name) {
  if (!name.empty()) {
    if (value named = args.get_kwarg(name, value())) return named;
  }
  if (position >= args.count() || jinja::is_val<jinja::value_kwarg>(args.get_args()[position]))
    return nullptr;
  return args.get_args()[position];
}

value find_method(const value& object, const std::string& name) {
  if (const auto found = methods_of(object).find(name); found != methods_of(object).end()) {
    return mk_val<jinja::value_func>(name, found->second, object);
  }
  if (is_known_method(object, name)) fail("{}.{}() is not supported", python_type(object), name);
  if (!changes_its_object(object, name)) return nullptr;
  return make_undefined(
      fmt::format("access to attribute '{}' of '{}' object is unsafe", name, python_type(object)));
}

value format_percent(const std::string& text, const std::vector<value>& values) {
  std::string result;
  std::size_t used = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') {
      result += text[at];
      continue;
    }
    const char kind = at + 1 < text.size() ? text[++at] : ' ';
    if (kind == '%') {
      result += '%';
    } else if (kind != 's' && kind != 'd') {
      fail("the format %{} is not supported", kind);
    } else if (used == values.size()) {
      fail("not enough arguments for format string");
    } else if (kind == 'd' && !is_integer(values[used])) {
      fail("%d of {} is not supported", python_type(values[used]));
    } else {
      result += python_str(values[used++]);
    }
  }
  if (used != values.size()) fail("not all arguments converted during string formatting");
  return make_string(result);
}

}  // namespace ee::tokenizer
