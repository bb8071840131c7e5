#include <algorithm>

#include "jinja_nodes.h"
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

// {{ expression }}
struct PrintNode : statement {
  explicit PrintNode(statement_ptr&& inner) : expression(std::move(inner)) { pos = expression->pos; }
  std::string type() const override { return "Print"; }
  value execute_impl(context& scope) const override {
    return make_string(python_str(expression->execute(scope)));
  }
  statement_ptr expression;
};

struct FilterBlockNode : jinja::filter_statement {
  using filter_statement::filter_statement;
  value execute_impl(context& scope) const override {
    context inner(scope);
    return make_string(python_str(run_filter(filter, make_string(run_body(body, inner)), scope)));
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
    return make_string(python_str(call_function(what->callee->execute(scope), arguments)));
  }
};

void follow_statement(statement_ptr& node) {
  if (auto* branch = cast_stmt<jinja::if_statement>(node)) {
    follow_expression(branch->test);
    follow_jinja2(branch->body);
    follow_jinja2(branch->alternate);
    exchange_node<jinja::if_statement, IfNode>(node, &jinja::if_statement::test, &jinja::if_statement::body,
                                               &jinja::if_statement::alternate);
  } else if (auto* loop = cast_stmt<jinja::for_statement>(node)) {
    follow_expression(loop->iterable);
    follow_jinja2(loop->body);
    follow_jinja2(loop->default_block);
    exchange_node<jinja::for_statement, ForNode>(node, &jinja::for_statement::loopvar,
                                                 &jinja::for_statement::iterable, &jinja::for_statement::body,
                                                 &jinja::for_statement::default_block);
  } else if (auto* set = cast_stmt<jinja::set_statement>(node)) {
    follow_expression(set->assignee);
    follow_expression(set->val);
    follow_jinja2(set->body);
    exchange_node<jinja::set_statement, SetNode>(node, &jinja::set_statement::assignee,
                                                 &jinja::set_statement::val, &jinja::set_statement::body);
  } else if (auto* macro = cast_stmt<jinja::macro_statement>(node)) {
    follow_expressions(macro->args);
    follow_jinja2(macro->body);
    exchange_node<jinja::macro_statement, MacroNode>(
        node, &jinja::macro_statement::name, &jinja::macro_statement::args, &jinja::macro_statement::body);
  } else if (auto* block = cast_stmt<jinja::call_statement>(node)) {
    auto* what = cast_stmt<jinja::call_expression>(block->call);
    follow_expression(what->callee);
    follow_expressions(what->args);
    follow_expressions(block->caller_args);
    follow_jinja2(block->body);
    exchange_node<jinja::call_statement, CallBlockNode>(node, &jinja::call_statement::call,
                                                        &jinja::call_statement::caller_args,
                                                        &jinja::call_statement::body);
  } else if (auto* filter = cast_stmt<jinja::filter_statement>(node)) {
    if (auto* with = cast_stmt<jinja::call_expression>(filter->filter)) follow_expressions(with->args);
    follow_jinja2(filter->body);
    exchange_node<jinja::filter_statement, FilterBlockNode>(node, &jinja::filter_statement::filter,
                                                            &jinja::filter_statement::body);
  } else {
    exchange_node<jinja::break_statement, BreakNode>(node) ||
        exchange_node<jinja::continue_statement, ContinueNode>(node);
  }
}

}  // namespace

void follow_jinja2(statements& body) {
  for (statement_ptr& node : body) {
    if (dynamic_cast<jinja::expression*>(node.get()) == nullptr) {
      follow_statement(node);
    } else if (!is_stmt<jinja::string_literal>(node)) {
      follow_expression(node);
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
