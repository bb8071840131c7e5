// jinja2's rules for statements and expressions, where llama.cpp's engine has rules of its own: nodes of ours
// take the place of the engine's (printing, look-ups, operators, calls, filters, tests, conditions, loops,
// assignments, macros). Literals stay the engine's.
#pragma once

#include <memory>
#include <utility>

#include "jinja_values.h"

namespace ee::tokenizer {

// jinja_statements.cpp: a template or the body of a block.
void follow_jinja2(jinja::statements& body);
// Runs statements one after the other; what they print. TemplateError with the line.
std::string run_body(const jinja::statements& body, jinja::context& scope);

// jinja_expressions.cpp.
void follow_expression(jinja::statement_ptr& node);
void follow_expressions(jinja::statements& nodes);
// `name` or `name(arguments)` behind a bar or behind `is`: the name is no variable.
void follow_named_call(jinja::statement_ptr& node);
jinja::value run_filter(const jinja::statement_ptr& filter, const jinja::value& operand,
                        jinja::context& scope);
void add_arguments(const jinja::statements& arguments, jinja::context& scope, jinja::func_args& args);
jinja::value call_function(const jinja::value& callee, const jinja::func_args& args);

// The node of class Ours with the parts of `node`, if that is a Theirs.
template <typename Theirs, typename Ours, typename... Parts>
bool exchange_node(jinja::statement_ptr& node, Parts Theirs::*... parts) {
  auto* theirs = jinja::cast_stmt<Theirs>(node);
  if (theirs == nullptr) return false;
  auto ours = std::make_unique<Ours>(std::move(theirs->*parts)...);
  ours->pos = node->pos;
  node = std::move(ours);
  return true;
}

}  // namespace ee::tokenizer
