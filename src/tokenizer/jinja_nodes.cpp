#include "jinja_nodes.h"

#include <algorithm>
#include <cmath>

#include "jinja_filters.h"
#include "jinja_objects.h"

namespace ee::tokenizer {

using jinja::cast_stmt;
using jinja::context;
using jinja::func_args;
using jinja::is_stmt;
using jinja::mk_val;
using jinja::statement;
using jinja::statement_ptr;
using jinja::statements;
using jinja::value;

namespace {

// break and continue carry along what the iteration printed before them.
struct BreakSignal : jinja::break_statement::signal {
  explicit BreakSignal(std::string printed) : text(std::move(printed)) {}
  std::string text;
};

struct ContinueSignal : jinja::continue_statement::signal {
  explicit ContinueSignal(std::string printed) : text(std::move(printed)) {}
  std::string text;
};

struct BreakNode : jinja::break_statement {
  value execute_impl(context&) const override { throw BreakSignal(""); }
};

struct ContinueNode : jinja::continue_statement {
  value execute_impl(context&) const override { throw ContinueSignal(""); }
};

std::size_t line_at(const context& scope, std::size_t position) {
  const std::string& source = *scope.src;
  const auto end = source.begin() + static_cast<std::ptrdiff_t>(std::min(position, source.size()));
  return 1 + static_cast<std::size_t>(std::count(source.begin(), end, '\n'));
}

void add_arguments(const statements& arguments, context& scope, func_args& args) {
  for (const statement_ptr& each : arguments) {
    if (const auto* spread = cast_stmt<jinja::spread_expression>(each)) {
      for (const value& item : python_items(spread->argument->execute(scope))) args.push_back(item);
    } else {
      args.push_back(each->execute(scope));
    }
  }
}

value call(const value& callee, const func_args& args) {
  if (callee->is_undefined()) fail_undefined(callee);
  if (!is_function(callee)) fail("'{}' object is not callable", python_type(callee));
  return callee->invoke(args);
}

// {{ expression }}
struct PrintNode : statement {
  explicit PrintNode(statement_ptr&& inner) : expression(std::move(inner)) { pos = expression->pos; }
  std::string type() const override { return "Print"; }
  value execute_impl(context& scope) const override {
    return make_string(python_str(expression->execute(scope)));
  }
  statement_ptr expression;
};

struct IdentifierNode : jinja::identifier {
  using identifier::identifier;
  value execute_impl(context& scope) const override {
    const value found = scope.get_val(val);
    const auto* undefined = jinja::cast_val<jinja::value_undefined>(found);
    // The engine says the bare name of what it does not find.
    return undefined != nullptr && undefined->hint == val
               ? make_undefined(fmt::format("'{}' is undefined", val))
               : found;
  }
};

struct MemberNode : jinja::member_expression {
  using member_expression::member_expression;
  value execute_impl(context& scope) const override {
    const value from = object->execute(scope);
    if (const auto* slice = cast_stmt<jinja::slice_expression>(property)) {
      const auto bound = [&](const statement_ptr& e) { return e ? e->execute(scope) : value(); };
      return get_slice(from, bound(slice->start_expr), bound(slice->stop_expr), bound(slice->step_expr));
    }
    if (computed || !is_stmt<jinja::identifier>(property)) return get_item(from, property->execute(scope));
    return get_attribute(from, cast_stmt<jinja::identifier>(property)->val);
  }
};

struct CallNode : jinja::call_expression {
  using call_expression::call_expression;
  value execute_impl(context& scope) const override {
    const value function = callee->execute(scope);
    func_args arguments(scope);
    add_arguments(args, scope, arguments);
    return call(function, arguments);
  }
};

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

struct BinaryNode : jinja::binary_expression {
  using binary_expression::binary_expression;

  value execute_impl(context& scope) const override {
    if (is_chain(scope)) fail("a chain of comparisons is not supported; write it with `and`");
    const value a = left->execute(scope);
    if (op.value == "and") return python_truth(a) ? right->execute(scope) : a;
    if (op.value == "or") return python_truth(a) ? a : right->execute(scope);
    const value b = right->execute(scope);
    if (op.value == "~") return make_string(python_str(a) + python_str(b));
    if (is_comparison(op.value)) return make_bool(compare(a, b));
    return arithmetic(op.value.at(0), a, b);
  }

 private:
  bool compare(const value& a, const value& b) const {
    if (op.value == "==") return python_equal(a, b);
    if (op.value == "!=") return !python_equal(a, b);
    if (op.value == "in") return python_contains(b, a);
    if (op.value == "not in") return !python_contains(b, a);
    if (op.value == "<") return python_less(a, b);
    if (op.value == ">") return python_less(b, a);
    if (op.value == "<=") return python_less(a, b) || python_equal(a, b);
    return python_less(b, a) || python_equal(a, b);
  }

  // The engine's parser takes a < b < c for (a < b) < c, which only the source tells apart.
  bool is_chain(const context& scope) const {
    const auto* before = cast_stmt<jinja::binary_expression>(left);
    if (before == nullptr || !is_comparison(before->op.value) || !is_comparison(op.value)) return false;
    const std::size_t last = scope.src->find_last_not_of(" \t\r\n", pos == 0 ? 0 : pos - 1);
    return last == std::string::npos || (*scope.src)[last] != ')';
  }
};

struct UnaryNode : jinja::unary_expression {
  using unary_expression::unary_expression;
  value execute_impl(context& scope) const override {
    const value operand = argument->execute(scope);
    if (op.value == "not") return make_bool(!python_truth(operand));
    return arithmetic(op.value.at(0), make_int(0), operand);
  }
};

struct TernaryNode : jinja::ternary_expression {
  using ternary_expression::ternary_expression;
  value execute_impl(context& scope) const override {
    return (python_truth(condition->execute(scope)) ? true_expr : false_expr)->execute(scope);
  }
};

struct SelectNode : jinja::select_expression {  // a if b, without else
  using select_expression::select_expression;
  value execute_impl(context& scope) const override {
    if (python_truth(test->execute(scope))) return lhs->execute(scope);
    return make_undefined("the inline if-expression evaluated to false and no else section was defined.");
  }
};

// `name` or `name(arguments)` behind a bar or behind `is`.
std::string named_call(const statement_ptr& node, context& scope, func_args& args) {
  if (const auto* with = cast_stmt<jinja::call_expression>(node)) {
    add_arguments(with->args, scope, args);
    if (const auto* name = cast_stmt<jinja::identifier>(with->callee)) return name->val;
  }
  if (const auto* name = cast_stmt<jinja::identifier>(node)) return name->val;
  fail("a filter or test has no name");
}

value run_filter(const statement_ptr& filter, const value& operand, context& scope) {
  func_args args(scope);
  args.push_back(operand);
  const std::string name = named_call(filter, scope, args);
  return apply_filter(name, args);
}

struct FilterNode : jinja::filter_expression {
  using filter_expression::filter_expression;
  value execute_impl(context& scope) const override {
    return run_filter(filter, operand->execute(scope), scope);
  }
};

struct FilterBlockNode : jinja::filter_statement {
  using filter_statement::filter_statement;
  value execute_impl(context& scope) const override {
    context inner(scope);
    return make_string(python_str(run_filter(filter, make_string(run_body(body, inner)), scope)));
  }
};

struct TestNode : jinja::test_expression {
  using test_expression::test_expression;
  value execute_impl(context& scope) const override {
    func_args args(scope);
    args.push_back(operand->execute(scope));
    const std::string name = named_call(test, scope, args);
    return make_bool(apply_test(name, args) != negate);
  }
};

struct IfNode : jinja::if_statement {
  using if_statement::if_statement;
  value execute_impl(context& scope) const override {
    return make_string(run_body(python_truth(test->execute(scope)) ? body : alternate, scope));
  }
};

void assign(const statement_ptr& target, const value& to, context& scope) {
  if (const auto* name = cast_stmt<jinja::identifier>(target)) {
    scope.set_val(name->val, to);
  } else if (const auto* names = cast_stmt<jinja::tuple_literal>(target)) {
    const std::vector<value> items = python_items(to);
    if (items.size() != names->val.size()) {
      fail("{} values to unpack, expected {}", items.size(), names->val.size());
    }
    for (std::size_t i = 0; i < items.size(); ++i) assign(names->val[i], items[i], scope);
  } else if (const auto* member = cast_stmt<jinja::member_expression>(target); member && !member->computed) {
    const value object = member->object->execute(scope);
    const auto* name = cast_stmt<jinja::identifier>(member->property);
    if (!jinja::is_val<jinja::value_object>(object) || is_dict(object) || name == nullptr) {
      fail("cannot assign attribute on non-namespace object");
    }
    if (is_function(to)) fail("a namespace that keeps a function is not supported");
    check_namespace_key(make_string(name->val));
    object->insert(make_string(name->val), to);
  } else {
    fail("cannot assign to this expression");
  }
}

struct SetNode : jinja::set_statement {
  using set_statement::set_statement;
  value execute_impl(context& scope) const override {
    if (val) {
      assign(assignee, val->execute(scope), scope);
    } else {
      context inner(scope);
      assign(assignee, make_string(run_body(body, inner)), scope);
    }
    return make_undefined("");
  }
};

// What `loop` is in one iteration.
value loop_object(const std::vector<value>& items, std::size_t at) {
  auto loop = mk_val<jinja::value_object>();
  loop->has_builtins = false;
  const auto count = [](std::size_t number) { return make_int(static_cast<int64_t>(number)); };
  loop->insert("index", count(at + 1));
  loop->insert("index0", count(at));
  loop->insert("revindex", count(items.size() - at));
  loop->insert("revindex0", count(items.size() - at - 1));
  loop->insert("first", make_bool(at == 0));
  loop->insert("last", make_bool(at + 1 == items.size()));
  loop->insert("length", count(items.size()));
  loop->insert("depth", count(1));
  loop->insert("depth0", count(0));
  loop->insert("previtem", at > 0 ? items[at - 1] : make_undefined("there is no previous item"));
  loop->insert("nextitem", at + 1 < items.size() ? items[at + 1] : make_undefined("there is no next item"));
  const jinja::func_handler cycle = [at](const func_args& args) {
    if (args.count() == 0) fail("no items for cycling given");
    return args.get_args()[at % args.count()];
  };
  const jinja::func_handler changed = [](const func_args&) -> value {
    fail("loop.changed() is not supported");
  };
  loop->insert("cycle", mk_val<jinja::value_func>("cycle", cycle));
  loop->insert("changed", mk_val<jinja::value_func>("changed", changed));
  return loop;
}

struct ForNode : jinja::for_statement {
  using for_statement::for_statement;

  // Each iteration has a scope of its own: what it sets is gone in the next one.
  value execute_impl(context& scope) const override {
    const std::vector<value> items = chosen_items(scope);
    std::string text;
    bool finished_one = false;
    for (std::size_t i = 0; i < items.size(); ++i) {
      context inner(scope);
      assign(loopvar, items[i], inner);
      inner.set_val("loop", loop_object(items, i));
      try {
        text += run_body(body, inner);
        finished_one = true;
      } catch (const ContinueSignal& signal) {
        text += signal.text;
      } catch (const BreakSignal& signal) {
        text += signal.text;
        break;
      }
    }
    if (finished_one) return make_string(text);
    context inner(scope);  // jinja2's else: no iteration came to its end
    return make_string(text + run_body(default_block, inner));
  }

 private:
  std::vector<value> chosen_items(context& scope) const {
    const auto* select = cast_stmt<jinja::select_expression>(iterable);
    std::vector<value> items = python_items((select ? select->lhs : iterable)->execute(scope));
    if (select == nullptr) return items;
    std::erase_if(items, [&](const value& item) {
      context inner(scope);
      assign(loopvar, item, inner);
      return !python_truth(select->test->execute(inner));
    });
    return items;
  }
};

// A macro's parameters, bound to a call's arguments. Defaults may name the parameters before them.
void bind_parameters(const std::string& macro, const statements& parameters, const func_args& args,
                     context& inner) {
  std::size_t positional = 0, named = 0;
  for (const value& given : args.get_args()) {
    ++(jinja::is_val<jinja::value_kwarg>(given) ? named : positional);
  }
  if (positional > parameters.size()) {
    fail("macro '{}' takes not more than {} argument(s)", macro, parameters.size());
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto* with_default = cast_stmt<jinja::keyword_argument_expression>(parameters[i]);
    const auto* name = cast_stmt<jinja::identifier>(with_default ? with_default->key : parameters[i]);
    if (name == nullptr) fail("a parameter of macro '{}' has no name", macro);
    value given = i < positional ? args.get_args()[i] : value();
    if (const value by_name = args.get_kwarg(name->val, value())) {
      given = by_name;
      --named;
    }
    if (!given && with_default) given = with_default->val->execute(inner);
    inner.set_val(name->val,
                  given ? given : make_undefined(fmt::format("parameter '{}' was not provided", name->val)));
  }
  if (const value caller = args.get_kwarg("caller", value())) {
    inner.set_val("caller", caller);
    --named;
  }
  if (named > 0) fail("macro '{}' takes no such keyword argument", macro);
}

struct MacroNode : jinja::macro_statement {
  using macro_statement::macro_statement;

  // A macro sees the scope that it stands in, not the one it is called from. That scope outlives it: no macro
  // can be carried out of a loop.
  value execute_impl(context& scope) const override {
    const std::string called = cast_stmt<jinja::identifier>(name)->val;
    const jinja::func_handler run = [this, called, where = &scope](const func_args& given) -> value {
      constexpr int64_t kDeepest = 200;
      const value depth = given.ctx.get_val(" depth");
      if (!is_integer(depth) || depth->as_int() >= kDeepest)
        fail("macro '{}' calls itself too often", called);
      context inner(*where);
      inner.set_val(" depth", make_int(depth->as_int() + 1));
      inner.set_val("caller", make_undefined("'caller' is undefined"));
      bind_parameters(called, args, given, inner);
      return make_string(run_body(body, inner));
    };
    scope.set_val(called, mk_val<jinja::value_func>(called, run));
    return make_undefined("");
  }
};

struct CallBlockNode : jinja::call_statement {
  using call_statement::call_statement;
  value execute_impl(context& scope) const override {
    const auto* what = cast_stmt<jinja::call_expression>(call);
    func_args arguments(scope);
    add_arguments(what->args, scope, arguments);
    const jinja::func_handler run = [this, &scope](const func_args& given) -> value {
      context inner(scope);
      bind_parameters("caller", caller_args, given, inner);
      return make_string(run_body(body, inner));
    };
    arguments.push_back(mk_val<jinja::value_kwarg>("caller", mk_val<jinja::value_func>("caller", run)));
    return make_string(python_str(tokenizer::call(what->callee->execute(scope), arguments)));
  }
};

void follow(statement_ptr& node);

void follow_each(statements& nodes) {
  for (statement_ptr& node : nodes) follow(node);
}

// The node of class Ours with the parts of `node`, if that is a Theirs.
template <typename Theirs, typename Ours, typename... Parts>
bool exchange(statement_ptr& node, Parts Theirs::*... parts) {
  auto* theirs = cast_stmt<Theirs>(node);
  if (theirs == nullptr) return false;
  auto ours = std::make_unique<Ours>(std::move(theirs->*parts)...);
  ours->pos = node->pos;
  node = std::move(ours);
  return true;
}

void follow_statement(statement_ptr& node) {
  if (auto* branch = cast_stmt<jinja::if_statement>(node)) {
    follow(branch->test);
    follow_jinja2(branch->body);
    follow_jinja2(branch->alternate);
    exchange<jinja::if_statement, IfNode>(node, &jinja::if_statement::test, &jinja::if_statement::body,
                                          &jinja::if_statement::alternate);
  } else if (auto* loop = cast_stmt<jinja::for_statement>(node)) {
    follow(loop->iterable);
    follow_jinja2(loop->body);
    follow_jinja2(loop->default_block);
    exchange<jinja::for_statement, ForNode>(node, &jinja::for_statement::loopvar,
                                            &jinja::for_statement::iterable, &jinja::for_statement::body,
                                            &jinja::for_statement::default_block);
  } else if (auto* set = cast_stmt<jinja::set_statement>(node)) {
    follow(set->assignee);
    follow(set->val);
    follow_jinja2(set->body);
    exchange<jinja::set_statement, SetNode>(node, &jinja::set_statement::assignee, &jinja::set_statement::val,
                                            &jinja::set_statement::body);
  } else if (auto* macro = cast_stmt<jinja::macro_statement>(node)) {
    follow_each(macro->args);
    follow_jinja2(macro->body);
    exchange<jinja::macro_statement, MacroNode>(node, &jinja::macro_statement::name,
                                                &jinja::macro_statement::args, &jinja::macro_statement::body);
  } else if (auto* block = cast_stmt<jinja::call_statement>(node)) {
    auto* what = cast_stmt<jinja::call_expression>(block->call);
    follow(what->callee);
    follow_each(what->args);
    follow_each(block->caller_args);
    follow_jinja2(block->body);
    exchange<jinja::call_statement, CallBlockNode>(node, &jinja::call_statement::call,
                                                   &jinja::call_statement::caller_args,
                                                   &jinja::call_statement::body);
  } else if (auto* filter = cast_stmt<jinja::filter_statement>(node)) {
    if (auto* with = cast_stmt<jinja::call_expression>(filter->filter)) follow_each(with->args);
    follow_jinja2(filter->body);
    exchange<jinja::filter_statement, FilterBlockNode>(node, &jinja::filter_statement::filter,
                                                       &jinja::filter_statement::body);
  } else {
    exchange<jinja::break_statement, BreakNode>(node) ||
        exchange<jinja::continue_statement, ContinueNode>(node);
  }
}

// `name` or `name(arguments)`: the name is no variable.
void follow_named_call(statement_ptr& node) {
  if (auto* with = cast_stmt<jinja::call_expression>(node)) follow_each(with->args);
}

void follow_operator(statement_ptr& node) {
  if (auto* binary = cast_stmt<jinja::binary_expression>(node)) {
    follow(binary->left);
    follow(binary->right);
    exchange<jinja::binary_expression, BinaryNode>(node, &jinja::binary_expression::op,
                                                   &jinja::binary_expression::left,
                                                   &jinja::binary_expression::right);
  } else if (auto* unary = cast_stmt<jinja::unary_expression>(node)) {
    follow(unary->argument);
    exchange<jinja::unary_expression, UnaryNode>(node, &jinja::unary_expression::op,
                                                 &jinja::unary_expression::argument);
  } else if (auto* choice = cast_stmt<jinja::ternary_expression>(node)) {
    follow(choice->condition);
    follow(choice->true_expr);
    follow(choice->false_expr);
    exchange<jinja::ternary_expression, TernaryNode>(node, &jinja::ternary_expression::condition,
                                                     &jinja::ternary_expression::true_expr,
                                                     &jinja::ternary_expression::false_expr);
  } else if (auto* select = cast_stmt<jinja::select_expression>(node)) {
    follow(select->lhs);
    follow(select->test);
    exchange<jinja::select_expression, SelectNode>(node, &jinja::select_expression::lhs,
                                                   &jinja::select_expression::test);
  } else if (auto* filter = cast_stmt<jinja::filter_expression>(node)) {
    follow(filter->operand);
    follow_named_call(filter->filter);
    exchange<jinja::filter_expression, FilterNode>(node, &jinja::filter_expression::operand,
                                                   &jinja::filter_expression::filter);
  } else if (auto* test = cast_stmt<jinja::test_expression>(node)) {
    follow(test->operand);
    follow_named_call(test->test);
    exchange<jinja::test_expression, TestNode>(node, &jinja::test_expression::operand,
                                               &jinja::test_expression::negate,
                                               &jinja::test_expression::test);
  }
}

void follow_look_up(statement_ptr& node) {
  if (auto* member = cast_stmt<jinja::member_expression>(node)) {
    follow(member->object);
    if (auto* slice = cast_stmt<jinja::slice_expression>(member->property)) {
      follow(slice->start_expr);
      follow(slice->stop_expr);
      follow(slice->step_expr);
    } else if (member->computed) {
      follow(member->property);
    }
    exchange<jinja::member_expression, MemberNode>(node, &jinja::member_expression::object,
                                                   &jinja::member_expression::property,
                                                   &jinja::member_expression::computed);
  } else if (auto* function = cast_stmt<jinja::call_expression>(node)) {
    follow(function->callee);
    follow_each(function->args);
    exchange<jinja::call_expression, CallNode>(node, &jinja::call_expression::callee,
                                               &jinja::call_expression::args);
  } else {
    exchange<jinja::identifier, IdentifierNode>(node, &jinja::identifier::val);
  }
}

void follow_parts_of_literal(statement_ptr& node) {
  if (auto* list = cast_stmt<jinja::array_literal>(node)) follow_each(list->val);
  if (auto* tuple = cast_stmt<jinja::tuple_literal>(node)) follow_each(tuple->val);
  if (auto* dict = cast_stmt<jinja::object_literal>(node)) {
    for (auto& [key, item] : dict->val) {
      follow(key);
      follow(item);
    }
  }
  if (auto* keyword = cast_stmt<jinja::keyword_argument_expression>(node)) follow(keyword->val);
  if (auto* spread = cast_stmt<jinja::spread_expression>(node)) follow(spread->argument);
}

void follow(statement_ptr& node) {
  if (!node) return;
  follow_parts_of_literal(node);
  follow_operator(node);
  follow_look_up(node);
}

}  // namespace

void follow_jinja2(statements& body) {
  for (statement_ptr& node : body) {
    if (dynamic_cast<jinja::expression*>(node.get()) == nullptr) {
      follow_statement(node);
    } else if (!is_stmt<jinja::string_literal>(node)) {
      follow(node);
      node = std::make_unique<PrintNode>(std::move(node));
    }
  }
}

std::string run_body(const statements& body, context& scope) {
  std::string text;
  for (const statement_ptr& node : body) {
    try {
      const value printed = node->execute(scope);
      if (is_string(printed)) text += text_of(printed);
    } catch (TemplateError& error) {
      if (error.line == 0) error.line = line_at(scope, node->pos);
      throw;
    } catch (const ContinueSignal& signal) {
      throw ContinueSignal(text + signal.text);
    } catch (const BreakSignal& signal) {
      throw BreakSignal(text + signal.text);
    }
  }
  return text;
}

}  // namespace ee::tokenizer
