#include "jinja_template.h"

#include <jinja/parser.h>

#include <cctype>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "jinja_nodes.h"
#include "jinja_objects.h"

namespace ee::tokenizer {

using jinja::func_args;
using jinja::mk_val;
using jinja::value;
using nlohmann::ordered_json;

namespace {

value from_json(const ordered_json& json) {
  if (json.is_null()) return mk_val<jinja::value_none>();
  if (json.is_boolean()) return make_bool(json.get<bool>());
  if (json.is_number_integer()) return make_int(json.get<int64_t>());
  if (json.is_number()) return mk_val<jinja::value_float>(json.get<double>());
  if (json.is_string()) return make_string(json.get<std::string>());
  if (json.is_array()) {
    std::vector<value> items;
    for (const ordered_json& item : json) items.push_back(from_json(item));
    return make_list(std::move(items));
  }
  auto object = mk_val<jinja::value_object>();
  for (const auto& [key, item] : json.items()) object->insert(key, from_json(item));
  return object;
}

std::string text_argument(const func_args& args) {
  if (args.count() != 1) fail("{}() takes one argument", args.func_name);
  return python_str(args.get_args()[0]);
}

value raise_exception(const func_args& args) { throw TemplateError(text_argument(args), /*raised=*/true); }

std::string format_time(const std::string& format, std::time_t now) {
  if (format.find("%f") != std::string::npos) fail("strftime_now() with %f is not supported");
  std::tm local{};
  localtime_r(&now, &local);
  std::string text(256, '\0');
  text.resize(std::strftime(text.data(), text.size(), format.c_str(), &local));
  if (text.empty() && !format.empty()) fail("strftime_now() cannot format '{}'", format);
  return text;
}

value range(const func_args& args) {
  int64_t bounds[3] = {0, 0, 1};  // start, stop, step
  if (args.count() == 0 || args.count() > 3) fail("range() takes one to three arguments");
  for (std::size_t i = 0; i < args.count(); ++i) {
    const value& bound = args.get_args()[i];
    if (!is_integer(bound)) fail("range() wants whole numbers, not {}", python_type(bound));
    bounds[args.count() == 1 ? 1 : i] = bound->as_int();
  }
  constexpr std::size_t kMost = 100'000;  // the sandbox's limit
  if (bounds[2] == 0) fail("range() arg 3 must not be zero");
  std::vector<value> numbers;
  for (int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1]; i += bounds[2]) {
    if (numbers.size() == kMost) fail("range() is longer than {} numbers", kMost);
    numbers.push_back(make_int(i));
  }
  return make_list(std::move(numbers));
}

// dict() and namespace(): pairs, or another dict, then names.
value make_object(const func_args& args, bool is_dictionary) {
  auto object = mk_val<jinja::value_object>();
  for (const value& given : args.get_args()) {
    if (const auto* named = jinja::cast_val<jinja::value_kwarg>(given)) {
      object->insert(named->key, named->val);
    } else if (is_dict(given)) {
      for (const auto& [key, item] : given->as_ordered_object()) object->insert(key, item);
    } else {
      for (const value& entry : python_items(given)) {
        const std::vector<value> pair = python_items(entry);
        if (pair.size() != 2) fail("{}() wants pairs", args.func_name);
        object->insert(pair[0], pair[1]);
      }
    }
  }
  object->has_builtins = is_dictionary;
  if (is_dictionary) return object;
  for (const auto& [key, item] : object->as_ordered_object()) check_namespace_key(key);
  return object;
}

void add_globals(jinja::context& scope, std::time_t now) {
  const auto add = [&](const char* name, const jinja::func_handler& function) {
    scope.set_val(name, mk_val<jinja::value_func>(name, function));
  };
  add("raise_exception", raise_exception);
  add("strftime_now",
      [now](const func_args& args) { return make_string(format_time(text_argument(args), now)); });
  add("range", range);
  add("dict", [](const func_args& args) { return make_object(args, /*is_dictionary=*/true); });
  add("namespace", [](const func_args& args) { return make_object(args, /*is_dictionary=*/false); });
  for (const char* name : {"lipsum", "cycler", "joiner"}) {
    add(name, [name](const func_args&) -> value { fail("{}() is not supported", name); });
  }
  scope.set_val(" depth", make_int(0));  // of calls of macros
}

jinja::program parse(const std::string& source, jinja::context& scope) {
  // The engine's lexer drops a first character that stands alone before a block; an empty comment in front
  // keeps it.
  const bool begins_with_text =
      !source.empty() && source[0] != '{' && !std::isspace(static_cast<unsigned char>(source[0]));
  jinja::lexer lexer;
  const jinja::lexer_result tokens = lexer.tokenize(begins_with_text ? "{##}" + source : source);
  *scope.src = tokens.source;
  jinja::program program = jinja::parse_from_tokens(tokens);
  follow_jinja2(program.body);
  return program;
}

// The engine's messages quote the source around: behind what is wrong while reading, before it while running.
std::string without_source(const std::string& message) {
  constexpr std::string_view kMark = "Error: ";
  const std::size_t first_end = message.find('\n');
  if (first_end != 0) return message.substr(0, first_end);
  const std::size_t at = message.rfind(kMark);
  return at == std::string::npos ? message : message.substr(at + kMark.size());
}

}  // namespace

std::string render_jinja(const std::string& source, const ordered_json& variables, std::time_t now) {
  try {
    jinja::context scope(source);
    add_globals(scope, now);
    for (const auto& [name, item] : variables.items()) scope.set_val(name, from_json(item));
    const jinja::program program = parse(source, scope);
    return run_body(program.body, scope);
  } catch (const TemplateError& error) {
    if (error.raised_by_template) throw base::UserError("the model's chat template says: {}", error.what());
    throw base::UserError("the model's chat template fails in line {}: {}", error.line, error.what());
  } catch (const base::UserError&) {
    throw;
  } catch (const std::exception& error) {
    throw base::UserError("the model's chat template cannot be read: {}", without_source(error.what()));
  }
}

}  // namespace ee::tokenizer
