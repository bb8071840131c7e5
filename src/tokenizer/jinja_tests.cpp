// jinja2's tests, what stands behind `is`.
#include <map>

#include "jinja_filters.h"
#include "python_text.h"

namespace ee::tokenizer {

using jinja::func_args;
using jinja::value;

namespace {

const value& self(const func_args& args) { return args.get_args().at(0); }

using Test = bool (*)(const func_args&);

const value& other(const func_args& args) {
  if (args.count() < 2) fail("a test misses its argument");
  return args.get_args()[1];
}

template <bool (*holds)(const value&)>
bool test_type(const func_args& args) {
  return holds(self(args));
}

int64_t number_of(const value& v) {
  if (!is_integer(v) && !is_bool(v)) fail("the test wants a whole number, not {}", python_type(v));
  return v->val_int;
}

bool is_iterable(const value& v) {
  return is_string(v) || is_list(v) || is_generator(v) || is_dict(v) || v->is_undefined();
}

bool is_sequence(const value& v) { return is_iterable(v) && !is_generator(v); }

bool test_divisible(const func_args& args) {
  const int64_t by = number_of(other(args));
  if (by == 0) fail("integer modulo by zero");
  return number_of(self(args)) % by == 0;
}

bool test_less(const func_args& args) { return python_less(self(args), other(args)); }
bool test_greater(const func_args& args) { return python_less(other(args), self(args)); }
bool test_at_least(const func_args& args) { return !test_less(args); }
bool test_at_most(const func_args& args) { return !test_greater(args); }
bool test_equal(const func_args& args) { return python_equal(self(args), other(args)); }
bool test_unequal(const func_args& args) { return !test_equal(args); }
bool test_in(const func_args& args) { return python_contains(other(args), self(args)); }

bool test_same(const func_args& args) {  // None, True and False are one object each
  const value &a = self(args), &b = other(args);
  if (is_integer(a) || is_string(a)) fail("the test sameas of {} is not supported", python_type(a));
  return a == b || ((a->is_none() || is_bool(a)) && python_type(a) == python_type(b) && python_equal(a, b));
}

template <std::string (*change)(std::string_view), std::string (*back)(std::string_view)>
bool test_case(const func_args& args) {
  const std::string text = python_str(self(args));
  return change(text) == text && back(text) != text;
}

const std::map<std::string, Test>& tests() {
  static const std::map<std::string, Test> all = {
      {"!=", test_unequal},
      {"<", test_less},
      {"<=", test_at_most},
      {"==", test_equal},
      {">", test_greater},
      {">=", test_at_least},
      {"boolean", test_type<is_bool>},
      {"callable", test_type<is_function>},
      {"defined", [](const func_args& args) { return !self(args)->is_undefined(); }},
      {"divisibleby", test_divisible},
      {"eq", test_equal},
      {"equalto", test_equal},
      {"even", [](const func_args& args) { return number_of(self(args)) % 2 == 0; }},
      {"false", [](const func_args& args) { return is_bool(self(args)) && !self(args)->as_bool(); }},
      {"float", test_type<is_float>},
      {"ge", test_at_least},
      {"greaterthan", test_greater},
      {"gt", test_greater},
      {"in", test_in},
      {"integer", test_type<is_integer>},
      {"iterable", test_type<is_iterable>},
      {"le", test_at_most},
      {"lessthan", test_less},
      {"lower", test_case<lower, upper>},
      {"lt", test_less},
      {"mapping", test_type<is_dict>},
      {"ne", test_unequal},
      {"none", [](const func_args& args) { return self(args)->is_none(); }},
      {"number", [](const func_args& args) { return self(args)->is_numeric(); }},
      {"odd", [](const func_args& args) { return number_of(self(args)) % 2 != 0; }},
      {"sameas", test_same},
      {"sequence", test_type<is_sequence>},
      {"string", test_type<is_string>},
      {"true", [](const func_args& args) { return is_bool(self(args)) && self(args)->as_bool(); }},
      {"undefined", [](const func_args& args) { return self(args)->is_undefined(); }},
      {"upper", test_case<upper, lower>},
  };
  return all;
}

}  // namespace

bool apply_test(const std::string& name, const func_args& args) {
  const auto found = tests().find(name);
  if (found == tests().end()) fail("the test '{}' is not supported", name);
  return found->second(args);
}

}  // namespace ee::tokenizer
