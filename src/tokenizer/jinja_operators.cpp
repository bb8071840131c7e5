#include "jinja_operators.h"

#include <cmath>

#include "jinja_objects.h"

namespace ee::tokenizer {

using jinja::mk_val;
using jinja::value;

namespace {

value add(const value& a, const value& b) {
  if (is_string(a) && is_string(b)) {
    const bool markup = jinja::is_val<Markup>(a) || jinja::is_val<Markup>(b);
    const auto changes = [](const value& v) {
      return !jinja::is_val<Markup>(v) && text_of(v).find_first_of("<>&'\"") != std::string::npos;
    };
    if (markup && (changes(a) || changes(b)))
      fail("text marked as safe is added to text that would be escaped");
    const std::string text = text_of(a) + text_of(b);
    return markup ? mk_val<Markup>(text) : make_string(text);
  }
  if (is_list(a) && python_type(a) == python_type(b)) {
    std::vector<value> items = a->as_array();
    items.insert(items.end(), b->as_array().begin(), b->as_array().end());
    return python_type(a) == "tuple" ? value(mk_val<jinja::value_tuple>(std::move(items)))
                                     : make_list(std::move(items));
  }
  fail("unsupported operand types for +: '{}' and '{}'", python_type(a), python_type(b));
}

value repeat(const value& a, const value& b) {
  const value& sequence = is_integer(a) ? b : a;
  const value& times = is_integer(a) ? a : b;
  if (!is_integer(times) || !(is_string(sequence) || is_list(sequence))) {
    fail("unsupported operand types for *: '{}' and '{}'", python_type(a), python_type(b));
  }
  if (times->as_int() > 100'000) fail("a sequence is repeated {} times", times->as_int());
  std::string text;
  std::vector<value> items;
  for (int64_t i = 0; i < times->as_int(); ++i) {
    if (is_string(sequence)) {
      text += text_of(sequence);
    } else {
      items.insert(items.end(), sequence->as_array().begin(), sequence->as_array().end());
    }
  }
  return is_string(sequence) ? make_string(text) : make_list(std::move(items));
}

value integer_arithmetic(char op, int64_t a, int64_t b) {
  int64_t result = 0;
  const bool overflow = op == '+'   ? __builtin_add_overflow(a, b, &result)
                        : op == '-' ? __builtin_sub_overflow(a, b, &result)
                        : op == '*' ? __builtin_mul_overflow(a, b, &result)
                                    : false;
  if (overflow) fail("a number does not fit 64 bits");
  if (op != '%') return make_int(result);
  if (b == 0) fail("integer modulo by zero");
  const int64_t rest = b == -1 ? 0 : a % b;
  return make_int(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);  // the divisor's sign, as in Python
}

}  // namespace

value arithmetic(char op, const value& a, const value& b) {
  for (const value& operand : {a, b}) {
    if (operand->is_undefined()) fail_undefined(operand);
  }
  if (op == '%' && is_string(a)) {
    return format_percent(text_of(a), python_type(b) == "tuple" ? b->as_array() : std::vector<value>{b});
  }
  if (!a->is_numeric() || !b->is_numeric()) {
    if (op == '+') return add(a, b);
    if (op == '*') return repeat(a, b);
    fail("unsupported operand types for {}: '{}' and '{}'", op, python_type(a), python_type(b));
  }
  if (op != '/' && !is_float(a) && !is_float(b)) return integer_arithmetic(op, a->val_int, b->val_int);
  const double x = a->val_flt, y = b->val_flt;
  if ((op == '/' || op == '%') && y == 0) fail("division by zero");
  if (op == '%') {
    const double rest = std::fmod(x, y);
    return mk_val<jinja::value_float>(rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest);
  }
  return mk_val<jinja::value_float>(op == '+' ? x + y : op == '-' ? x - y : op == '*' ? x * y : x / y);
}

bool is_comparison(const std::string& op) {
  constexpr std::string_view kAll = " == != < > <= >= in not in ";
  return kAll.find(fmt::format(" {} ", op)) != std::string_view::npos;
}

bool compare(const std::string& op, const value& a, const value& b) {
  if (op == "==") return python_equal(a, b);
  if (op == "!=") return !python_equal(a, b);
  if (op == "in") return python_contains(b, a);
  if (op == "not in") return !python_contains(b, a);
  if (op == "<") return python_less(a, b);
  if (op == ">") return python_less(b, a);
  if (op == "<=") return python_less(a, b) || python_equal(a, b);
  return python_less(b, a) || python_equal(a, b);
}

}  // namespace ee::tokenizer
