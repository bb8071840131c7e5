#include "cli_options.h"

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/parsers.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <charconv>
#include <sstream>

#include "ee/base/error.h"
#include "ee/base/program.h"
#include "ee/base/text.h"

namespace ee::cli {
namespace po = boost::program_options;
using base::UserError;

namespace {

constexpr unsigned kHelpWidth = 100;

template <typename Number>
Number parse_number(const std::string& option, const std::string& text, const char* expected) {
  Number number{};
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stopped != end || text.empty())
    throw UserError("option --{}: expected {}, got '{}'", option, expected, text);
  return number;
}

void assign(const std::string&, const std::string& text, std::string& target) { target = text; }
void assign(const std::string& option, const std::string& text, int64_t& target) {
  target = parse_number<int64_t>(option, text, "a whole number");
}
void assign(const std::string& option, const std::string& text, double& target) {
  target = parse_number<double>(option, text, "a number");
}

template <typename T>
std::function<void(const std::string&)> setter(const std::string& name, T& target) {
  return [name, &target](const std::string& text) { assign(name, text, target); };
}

template <typename T>
std::function<void(const std::string&)> setter(const std::string& name, std::optional<T>& target) {
  return [name, &target](const std::string& text) { assign(name, text, target.emplace()); };
}

std::string with_default(const std::string& help, const std::string& value) {
  return value.empty() ? help : fmt::format("{} (default: {})", help, value);
}

std::string suggestion(const std::string& name, const std::vector<std::string>& known) {
  const std::string nearest = base::nearest_name(name, known);
  return nearest.empty() ? "" : fmt::format(" (did you mean {}?)", nearest);
}

}  // namespace

CommandLine::CommandLine(std::string usage, std::string summary)
    : usage_(std::move(usage)), summary_(std::move(summary)) {}

CommandLine& CommandLine::add(Option option) {
  EE_CHECK(!find(option.name), "option --{} is declared twice", option.name);
  options_.push_back(std::move(option));
  return *this;
}

CommandLine& CommandLine::value(const std::string& name, const std::string& metavar, std::string& target,
                                const std::string& help) {
  return add({name, metavar, with_default(help, target), setter(name, target)});
}
CommandLine& CommandLine::value(const std::string& name, const std::string& metavar, int64_t& target,
                                const std::string& help) {
  return add({name, metavar, with_default(help, std::to_string(target)), setter(name, target)});
}
CommandLine& CommandLine::value(const std::string& name, const std::string& metavar, double& target,
                                const std::string& help) {
  return add({name, metavar, with_default(help, fmt::format("{}", target)), setter(name, target)});
}
CommandLine& CommandLine::value(const std::string& name, const std::string& metavar,
                                std::optional<std::string>& target, const std::string& help) {
  return add({name, metavar, help, setter(name, target)});
}
CommandLine& CommandLine::value(const std::string& name, const std::string& metavar,
                                std::optional<int64_t>& target, const std::string& help) {
  return add({name, metavar, help, setter(name, target)});
}
CommandLine& CommandLine::value(const std::string& name, const std::string& metavar,
                                std::optional<double>& target, const std::string& help) {
  return add({name, metavar, help, setter(name, target)});
}

CommandLine& CommandLine::values(const std::string& name, const std::string& metavar,
                                 std::vector<std::string>& target, const std::string& help) {
  const auto append = [&target](const std::string& text) { target.push_back(text); };
  return add({.name = name, .metavar = metavar, .help = help, .set = append, .repeatable = true});
}

CommandLine& CommandLine::flag(const std::string& name, bool& target, const std::string& help) {
  return add({name, "", help, [&target](const std::string&) { target = true; }});
}

CommandLine& CommandLine::positional(const std::string& metavar, std::string& target,
                                     const std::string& help) {
  positionals_.push_back({metavar, help, &target});
  return *this;
}

CommandLine& CommandLine::required(const std::string& name) {
  Option* option = find(name);
  EE_CHECK(option, "required option --{} is not declared", name);
  option->required = true;
  return *this;
}

CommandLine::Option* CommandLine::find(std::string_view name) {
  for (auto& option : options_)
    if (option.name == name) return &option;
  return nullptr;
}

void CommandLine::accept(const std::string& name, const std::vector<std::string>& values) {
  Option* option = find(name);
  if (option->given && !option->repeatable) throw UserError("option --{} is given twice", name);
  option->given = true;
  option->set(values.empty() ? "" : values.front());
}

void CommandLine::check_complete(size_t positionals) const {
  std::vector<std::string> missing;
  for (size_t i = positionals; i < positionals_.size(); ++i) missing.push_back(positionals_[i].metavar);
  for (const auto& option : options_)
    if (option.required && !option.given) missing.push_back("--" + option.name + " " + option.metavar);
  if (!missing.empty()) throw UserError("missing {}\nusage: {}", base::join(missing, ", "), usage_);
}

bool CommandLine::parse(const std::vector<std::string>& args) {
  po::options_description declared;
  std::vector<std::string> known = {"--help"};
  declared.add_options()("help,h", "");
  for (const auto& option : options_) {
    known.push_back("--" + option.name);
    if (option.metavar.empty())
      declared.add_options()(option.name.c_str(), "");
    else
      declared.add_options()(option.name.c_str(), po::value<std::string>(), "");
  }

  // Guessing is off: "--mod" is a mistake, not "--model".
  using namespace po::command_line_style;
  constexpr int kStyle = unix_style & ~allow_guessing & ~allow_sticky;
  std::vector<po::option> found;
  try {
    found = po::command_line_parser(args).options(declared).style(kStyle).allow_unregistered().run().options;
  } catch (const po::error& error) {
    throw UserError("{}\nusage: {}", error.what(), usage_);
  }

  std::vector<std::string> unknown;
  for (const auto& option : found) {
    if (option.string_key == "help") {
      fmt::print("{}", help());
      return false;
    }
    if (option.unregistered) {
      const std::string name = base::split(option.original_tokens.front(), '=').front();
      unknown.push_back(name + suggestion(name, known));
    }
  }
  if (!unknown.empty()) throw UserError("unknown option {}\nusage: {}", base::join(unknown, ", "), usage_);

  size_t positionals = 0;
  for (const auto& option : found) {
    if (option.position_key < 0) {
      accept(option.string_key, option.value);
    } else {
      const std::string& text = option.value.front();
      if (positionals == positionals_.size())
        throw UserError("unexpected argument '{}'\nusage: {}", text, usage_);
      *positionals_[positionals++].target = text;
    }
  }
  check_complete(positionals);
  return true;
}

std::string CommandLine::help() const {
  po::options_description arguments("arguments", kHelpWidth), options("options", kHelpWidth);
  for (const auto& option : options_) {
    const std::string text = option.required ? option.help + " (required)" : option.help;
    if (option.metavar.empty())
      options.add_options()(option.name.c_str(), text.c_str());
    else
      options.add_options()(option.name.c_str(), po::value<std::string>()->value_name(option.metavar),
                            text.c_str());
  }
  options.add_options()("help", "print this and stop");
  std::ostringstream out;
  out << "usage: " << usage_ << "\n\n" << summary_ << "\n\n";
  for (const auto& positional : positionals_)
    out << "  " << positional.metavar << "  " << positional.help << "\n";
  if (!positionals_.empty()) out << "\n";
  out << options;
  return out.str();
}

namespace {

const Command* find_command(const Program& program, const std::string& name) {
  for (const auto& command : program.commands)
    if (command.name == name) return &command;
  return nullptr;
}

void print_program_help(const Program& program) {
  fmt::print("{} {}\n{}\n", program.name, base::version(), program.summary);
  if (program.commands.size() > 1 || !find_command(program, "")) {
    fmt::print("\ncommands:\n");
    for (const auto& command : program.commands)
      if (!command.name.empty()) fmt::print("  {} {:<10} {}\n", program.name, command.name, command.summary);
    fmt::print("\n`{} COMMAND --help` describes a command; `{} --version` prints the version.\n",
               program.name, program.name);
  }
  fmt::print("\n");
}

int dispatch(const Program& program, std::vector<std::string> args) {
  const std::string first = args.empty() ? "" : args.front();
  const Command* unnamed = find_command(program, "");
  if (first == "--version") {
    fmt::print("{} {}\n", program.name, base::version());
    return 0;
  }
  if (first == "--help" || first == "-h") {
    print_program_help(program);
    return unnamed ? unnamed->run({"--help"}) : 0;
  }
  if (first.empty() || first.starts_with('-')) {
    if (unnamed) return unnamed->run(args);
    throw UserError("expected a command before '{}'; `{} --help` lists them", first, program.name);
  }
  const Command* command = find_command(program, first);
  if (!command) {
    std::vector<std::string> names;
    for (const auto& candidate : program.commands)
      if (!candidate.name.empty()) names.push_back(candidate.name);
    if (names.empty()) return unnamed->run(args);  // its own parser says what is wrong with the argument
    throw UserError("unknown command '{}'{}; known: {}", first, suggestion(first, names),
                    base::join(names, ", "));
  }
  args.erase(args.begin());
  return command->run(args);
}

}  // namespace

int run_commands(const Program& program, int argc, const char* const* argv) {
  return base::run_program(program.name.c_str(), [&] {
    return dispatch(program, std::vector<std::string>(argv + 1, argv + argc));
  });
}

}  // namespace ee::cli
