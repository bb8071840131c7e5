#include "jinja_filters.h"
#include "jinja_nodes.h"
#include "jinja_objects.h"
#include "jinja_operators.h"

namespace ee::tokenizer {

using jinja::cast_stmt;
using jinja::context;
using jinja::func_args;
using jinja::is_stmt;
using jinja::statement_ptr;
using jinja::statements;
using jinja::value;

namespace {

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
    return call_function(function, arguments);
  }
};

struct BinaryNode : jinja::binary_expression {
  using binary_expression::binary_expression;

  value execute_impl(context& scope) const override {
    if (is_chain(scope)) fail("a chain of comparisons is not supported; write it with `and`");
    const value a = left->execute(scope);
    if (op.value == "and") return python_truth(a) ? right->execute(scope) : a;
    if (op.value == "or") return python_truth(a) ? a : right->execute(scope);
    const value b = right->execute(scope);
    if (op.value == "~") return make_string(python_str(a) + python_str(b));
    if (is_comparison(op.value)) return make_bool(compare(op.value, a, b));
    return arithmetic(op.value.at(0), a, b);
  }

 private:
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

struct FilterNode : jinja::filter_expression {
  using filter_expression::filter_expression;
  value execute_impl(context& scope) const override {
    return run_filter(filter, operand->execute(scope), scope);
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

void follow_operator(statement_ptr& node) {
  if (auto* binary = cast_stmt<jinja::binary_expression>(node)) {
    follow_expression(binary->left);
    follow_expression(binary->right);
    exchange_node<jinja::binary_expression, BinaryNode>(node, &jinja::binary_expression::op,
                                                        &jinja::binary_expression::left,
                                                        &jinja::binary_expression::right);
  } else if (auto* unary = cast_stmt<jinja::unary_expression>(node)) {
    follow_expression(unary->argument);
    exchange_node<jinja::unary_expression, UnaryNode>(node, &jinja::unary_expression::op,
                                                      &jinja::unary_expression::argument);
  } else if (auto* choice = cast_stmt<jinja::ternary_expression>(node)) {
    follow_expression(choice->condition);
    follow_expression(choice->true_expr);
    follow_expression(choice->false_expr);
    exchange_node<jinja::ternary_expression, TernaryNode>(node, &jinja::ternary_expression::condition,
                                                          &jinja::ternary_expression::true_expr,
                                                          &jinja::ternary_expression::false_expr);
  } else if (auto* select = cast_stmt<jinja::select_expression>(node)) {
    follow_expression(select->lhs);
    follow_expression(select->test);
    exchange_node<jinja::select_expression, SelectNode>(node, &jinja::select_expression::lhs,
                                                        &jinja::select_expression::test);
  } else if (auto* filter = cast_stmt<jinja::filter_expression>(node)) {
    follow_expression(filter->operand);
    follow_named_call(filter->filter);
    exchange_node<jinja::filter_expression, FilterNode>(node, &jinja::filter_expression::operand,
                                                        &jinja::filter_expression::filter);
  } else if (auto* test = cast_stmt<jinja::test_expression>(node)) {
    follow_expression(test->operand);
    follow_named_call(test->test);
    exchange_node<jinja::test_expression, TestNode>(node, &jinja::test_expression::operand,
                                                    &jinja::test_expression::negate,
                                                    &jinja::test_expression::test);
  }
}

void follow_look_up(statement_ptr& node) {
  if (auto* member = cast_stmt<jinja::member_expression>(node)) {
    follow_expression(member->object);
    if (auto* slice = cast_stmt<jinja::slice_expression>(member->property)) {
      follow_expression(slice->start_expr);
      follow_expression(slice->stop_expr);
      follow_expression(slice->step_expr);
    } else if (member->computed) {
      follow_expression(member->property);
    }
    exchange_node<jinja::member_expression, MemberNode>(node, &jinja::member_expression::object,
                                                        &jinja::member_expression::property,
                                                        &jinja::member_expression::computed);
  } else if (auto* function = cast_stmt<jinja::call_expression>(node)) {
    follow_expression(function->callee);
    follow_expressions(function->args);
    exchange_node<jinja::call_expression, CallNode>(node, &jinja::call_expression::callee,
                                                    &jinja::call_expression::args);
  } else {
    exchange_node<jinja::identifier, IdentifierNode>(node, &jinja::identifier::val);
  }
}

void follow_parts_of_literal(statement_ptr& node) {
  if (auto* list = cast_stmt<jinja::array_literal>(node)) follow_expressions(list->val);
  if (auto* tuple = cast_stmt<jinja::tuple_literal>(node)) follow_expressions(tuple->val);
  if (auto* dict = cast_stmt<jinja::object_literal>(node)) {
    for (auto& [key, item] : dict->val) {
      follow_expression(key);
      follow_expression(item);
    }
  }
  if (auto* keyword = cast_stmt<jinja::keyword_argument_expression>(node)) follow_expression(keyword->val);
  if (auto* spread = cast_stmt<jinja::spread_expression>(node)) follow_expression(spread->argument);
}

}  // namespace

void add_arguments(const statements& arguments, context& scope, func_args& args) {
  for (const statement_ptr& each : arguments) {
    if (const auto* spread = cast_stmt<jinja::spread_expression>(each)) {
      for (const value& item : python_items(spread->argument->execute(scope))) args.push_back(item);
    } else {
      args.push_back(each->execute(scope));
    }
  }
}

value call_function(const value& callee, const func_args& args) {
  if (callee->is_undefined()) fail_undefined(callee);
  if (!is_function(callee)) fail("'{}' object is not callable", python_type(callee));
  return callee->invoke(args);
}

value run_filter(const statement_ptr& filter, const value& operand, context& scope) {
  func_args args(scope);
  args.push_back(operand);
  const std::string name = named_call(filter, scope, args);
  return apply_filter(name, args);
}

void follow_expressions(statements& nodes) {
  for (statement_ptr& node : nodes) follow_expression(node);
}

void follow_named_call(statement_ptr& node) {
  if (auto* with = cast_stmt<jinja::call_expression>(node)) follow_expressions(with->args);
}

void follow_expression(statement_ptr& node) {
  if (!node) return;
  follow_parts_of_literal(node);
  follow_operator(node);
  follow_look_up(node);
}

}  // namespace ee::tokenizer
