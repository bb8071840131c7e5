#include "jinja_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <utility>

#include "jinja_objects.h"
#include "python_text.h"

namespace ee::tokenizer {

using jinja::func_args;
using jinja::mk_val;
using jinja::value;

namespace {

using Filter = value (*)(const func_args&);
using Items = std::vector<value>;

const value& self(const func_args& args) { return args.get_args().at(0); }

bool flag(const func_args& args, std::size_t position, const std::string& name) {
  const value given = argument(args, position, name);
  return given && python_truth(given);
}

value generator(Items items) { return mk_val<Generator>(std::move(items)); }

// `attribute` of an item: names and indices with dots between them.
value attribute_of(value item, const value& attribute) {
  if (is_integer(attribute)) return get_item(item, attribute);
  for (const std::string& part : split(python_str(attribute), ".", -1, Side::left)) {
    const bool index = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    item = get_item(item, index ? make_int(std::stoll(part)) : make_string(part));
  }
  return item;
}

// What a filter compares an item by: its attribute, without regard to case unless asked for.
struct SortKey {
  value attribute;
  bool case_sensitive;

  value operator()(const value& item) const {
    const value key = attribute ? attribute_of(item, attribute) : item;
    return is_string(key) && !case_sensitive ? make_string(lower(text_of(key))) : key;
  }
};

value filter_abs(const func_args& args) {
  const value& number = self(args);
  if (is_float(number)) return mk_val<jinja::value_float>(std::fabs(number->as_float()));
  if (!is_integer(number)) fail("abs of {} is not supported", python_type(number));
  return make_int(std::abs(number->as_int()));
}

value filter_default(const func_args& args) {
  const value otherwise = argument(args, 1, "default_value");
  const bool boolean = flag(args, 2, "boolean");
  if (self(args)->is_undefined() || (boolean && !python_truth(self(args)))) {
    return otherwise ? otherwise : make_string("");
  }
  return self(args);
}

value filter_dictsort(const func_args& args) {
  if (!is_dict(self(args))) fail("dictsort wants a dict, not {}", python_type(self(args)));
  const value by = argument(args, 2, "by");
  const std::size_t column = by && python_str(by) == "value" ? 1 : 0;
  const SortKey key{.attribute = make_int(static_cast<int64_t>(column)),
                    .case_sensitive = flag(args, 1, "case_sensitive")};
  Items items;
  for (const auto& entry : self(args)->as_ordered_object()) {
    items.push_back(mk_val<jinja::value_tuple>(entry));
  }
  const bool reverse = flag(args, 3, "reverse");
  std::ranges::stable_sort(items, [&](const value& a, const value& b) {
    return reverse ? python_less(key(b), key(a)) : python_less(key(a), key(b));
  });
  return make_list(std::move(items));
}

value filter_first(const func_args& args) {
  const Items items = python_items(self(args));
  return items.empty() ? make_undefined("No first item, sequence was empty.") : items.front();
}

value filter_last(const func_args& args) {
  const Items items = python_items(self(args));
  return items.empty() ? make_undefined("No last item, sequence was empty.") : items.back();
}

value filter_float(const func_args& args) {
  const value& given = self(args);
  const value otherwise = argument(args, 1, "default");
  if (is_integer(given) || is_bool(given) || is_float(given))
    return mk_val<jinja::value_float>(given->val_flt);
  if (is_string(given)) {
    const std::string text = strip(text_of(given));
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return mk_val<jinja::value_float>(number);
  }
  return otherwise ? otherwise : mk_val<jinja::value_float>(0.0);
}

value filter_int(const func_args& args) {
  const value& given = self(args);
  if (argument(args, 2, "base")) fail("the filter int with a base is not supported");
  if (is_integer(given) || is_bool(given)) return make_int(given->val_int);
  const value otherwise = argument(args, 1, "default");
  if (is_float(given) && std::isfinite(given->as_float()))
    return make_int(static_cast<int64_t>(given->as_float()));
  if (is_string(given)) {
    const std::string text = strip(text_of(given));
    int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return make_int(number);
    double real = 0;
    const auto [rest, wrong] = std::from_chars(text.data(), text.data() + text.size(), real);
    if (wrong == std::errc() && rest == text.data() + text.size())
      return make_int(static_cast<int64_t>(real));
  }
  return otherwise ? otherwise : make_int(0);
}

value filter_indent(const func_args& args) {
  const value width = argument(args, 1, "width");
  const bool first = flag(args, 2, "first"), blank = flag(args, 3, "blank");
  const std::string by = !width             ? std::string(4, ' ')
                         : is_string(width) ? text_of(width)
                                            : std::string(static_cast<std::size_t>(width->as_int()), ' ');
  const std::vector<std::string> lines = split(python_str(self(args)) + "\n", "\n", -1, Side::left);
  std::string text;
  for (std::size_t i = 0; i + 1 < lines.size(); ++i) {  // the last one is the end that was added
    if (i > 0) text += "\n";
    if (i > 0 ? blank || !lines[i].empty() : first) text += by;
    text += lines[i];
  }
  return make_string(text);
}

value filter_items(const func_args& args) {
  if (self(args)->is_undefined()) return generator({});
  if (!is_dict(self(args))) fail("Can only get item pairs from a mapping.");
  Items items;
  for (const auto& entry : self(args)->as_ordered_object()) {
    items.push_back(mk_val<jinja::value_tuple>(entry));
  }
  return generator(std::move(items));
}

value filter_join(const func_args& args) {
  const value between = argument(args, 1, "d"), attribute = argument(args, 2, "attribute");
  std::string text;
  bool first = true;
  for (const value& item : python_items(self(args))) {
    if (!std::exchange(first, false) && between) text += python_str(between);
    text += python_str(attribute ? attribute_of(item, attribute) : item);
  }
  return make_string(text);
}

value filter_list(const func_args& args) { return make_list(python_items(self(args))); }

value filter_length(const func_args& args) { return make_int(python_length(self(args))); }

// map, select and reject take whatever is false, None among it, for empty.
Items items_if_any(const value& sequence) {
  return python_truth(sequence) ? python_items(sequence) : Items();
}

value filter_map(const func_args& args) {
  const value attribute = args.get_kwarg("attribute", value()),
              otherwise = args.get_kwarg("default", value());
  Items mapped;
  for (const value& item : items_if_any(self(args))) {
    if (attribute) {
      const value found = attribute_of(item, attribute);
      mapped.push_back(found->is_undefined() && otherwise ? otherwise : found);
      continue;
    }
    func_args inner(args.ctx);
    inner.push_back(item);
    for (std::size_t i = 2; i < args.count(); ++i) inner.push_back(args.get_args()[i]);
    const value name = argument(args, 1, "");
    if (!name) fail("map requires a filter argument");
    mapped.push_back(apply_filter(python_str(name), inner));
  }
  return generator(std::move(mapped));
}

template <bool largest>
value filter_extreme(const func_args& args) {
  const SortKey key{.attribute = argument(args, 2, "attribute"),
                    .case_sensitive = flag(args, 1, "case_sensitive")};
  const Items items = python_items(self(args));
  if (items.empty()) return make_undefined("No aggregated item, sequence was empty.");
  value best = items.front();
  for (const value& item : items) {
    if (largest ? python_less(key(best), key(item)) : python_less(key(item), key(best))) best = item;
  }
  return best;
}

// select, reject: the item itself is tested; selectattr, rejectattr: its attribute.
template <bool keeps, bool by_attribute>
value filter_select(const func_args& args) {
  const std::size_t at = by_attribute ? 2 : 1;  // of the test's name
  const value name = argument(args, at, "");
  Items chosen;
  for (const value& item : items_if_any(self(args))) {
    func_args inner(args.ctx);
    if (by_attribute && args.count() < 2) fail("Missing parameter for attribute name");
    inner.push_back(by_attribute ? attribute_of(item, args.get_args()[1]) : item);
    for (std::size_t i = at + 1; i < args.count(); ++i) inner.push_back(args.get_args()[i]);
    const bool holds = name ? apply_test(python_str(name), inner) : python_truth(inner.get_args()[0]);
    if (holds == keeps) chosen.push_back(item);
  }
  return generator(std::move(chosen));
}

value filter_replace(const func_args& args) {
  const value old_text = argument(args, 1, "old"), new_text = argument(args, 2, "new"),
              count = argument(args, 3, "count");
  if (!old_text || !new_text) fail("the filter replace misses an argument");
  return make_string(replace(python_str(self(args)), python_str(old_text), python_str(new_text),
                             count && is_integer(count) ? count->as_int() : -1));
}

value filter_reverse(const func_args& args) {
  Items items = python_items(self(args));
  std::ranges::reverse(items);
  if (!is_string(self(args))) return generator(std::move(items));
  std::string text;
  for (const value& item : items) text += text_of(item);
  return make_string(text);
}

value filter_sort(const func_args& args) {
  const bool reverse = flag(args, 1, "reverse");
  const SortKey key{.attribute = argument(args, 3, "attribute"),
                    .case_sensitive = flag(args, 2, "case_sensitive")};
  Items items = python_items(self(args));
  std::ranges::stable_sort(items, [&](const value& a, const value& b) {
    return reverse ? python_less(key(b), key(a)) : python_less(key(a), key(b));
  });
  return make_list(std::move(items));
}

value filter_sum(const func_args& args) {
  const value attribute = argument(args, 1, "attribute");
  int64_t total = 0;
  for (const value& item : python_items(self(args))) {
    const value number = attribute ? attribute_of(item, attribute) : item;
    if (!is_integer(number))
      fail("the filter sum is supported for whole numbers, not {}", python_type(number));
    total += number->as_int();
  }
  return make_int(total);
}

value filter_title(const func_args& args) {
  std::string text;
  bool starts = true;
  for (const std::string& character : characters_of(python_str(self(args)))) {
    text += starts ? upper(character) : lower(character);
    starts =
        is_python_space(character) || std::string_view("-({[<").find(character) != std::string_view::npos;
  }
  return make_string(text);
}

value filter_trim(const func_args& args) {
  const value characters = argument(args, 1, "chars");
  if (!characters || characters->is_none()) return make_string(strip(python_str(self(args))));
  return make_string(strip(python_str(self(args)), Side::both, python_str(characters)));
}

value filter_unique(const func_args& args) {
  const SortKey key{.attribute = argument(args, 2, "attribute"),
                    .case_sensitive = flag(args, 1, "case_sensitive")};
  Items chosen, seen;
  for (const value& item : python_items(self(args))) {
    const value wanted = key(item);
    if (std::ranges::any_of(seen, [&](const value& other) { return python_equal(other, wanted); })) continue;
    seen.push_back(wanted);
    chosen.push_back(item);
  }
  return generator(std::move(chosen));
}

template <std::string (*change)(std::string_view)>
value filter_text(const func_args& args) {
  return make_string(change(python_str(self(args))));
}

value filter_string(const func_args& args) {
  return is_string(self(args)) ? self(args) : make_string(python_str(self(args)));
}

value filter_format(const func_args& args) {
  return format_percent(python_str(self(args)), {args.get_args().begin() + 1, args.get_args().end()});
}

value filter_safe(const func_args& args) { return mk_val<Markup>(python_str(self(args))); }

value filter_escape(const func_args& args) {
  if (jinja::is_val<Markup>(self(args))) return self(args);
  return mk_val<Markup>(escape_html(python_str(self(args))));
}

value filter_tojson(const func_args& args) { return make_string(python_json(self(args), args)); }

const std::map<std::string, Filter>& filters() {
  static const std::map<std::string, Filter> all = {
      {"abs", filter_abs},
      {"capitalize", filter_text<capitalize>},
      {"count", filter_length},
      {"d", filter_default},
      {"default", filter_default},
      {"dictsort", filter_dictsort},
      {"e", filter_escape},
      {"escape", filter_escape},
      {"first", filter_first},
      {"float", filter_float},
      {"format", filter_format},
      {"indent", filter_indent},
      {"int", filter_int},
      {"items", filter_items},
      {"join", filter_join},
      {"last", filter_last},
      {"length", filter_length},
      {"list", filter_list},
      {"lower", filter_text<lower>},
      {"map", filter_map},
      {"max", filter_extreme<true>},
      {"min", filter_extreme<false>},
      {"reject", filter_select<false, false>},
      {"rejectattr", filter_select<false, true>},
      {"replace", filter_replace},
      {"reverse", filter_reverse},
      {"safe", filter_safe},
      {"select", filter_select<true, false>},
      {"selectattr", filter_select<true, true>},
      {"sort", filter_sort},
      {"string", filter_string},
      {"sum", filter_sum},
      {"title", filter_title},
      {"tojson", filter_tojson},
      {"trim", filter_trim},
      {"unique", filter_unique},
      {"upper", filter_text<upper>},
  };
  return all;
}

}  // namespace

value apply_filter(const std::string& name, const func_args& args) {
  const auto found = filters().find(name);
  if (found == filters().end()) fail("the filter '{}' is not supported", name);
  return found->second(args);
}

}  // namespace ee::tokenizer
