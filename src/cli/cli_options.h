// Command lines of the three programs: subcommands by table, options declared once (name, value, target,
// help). Every mistake on a command line is a UserError (exit code 2) that names the nearest known option.
//
//   int run_inspect(const std::vector<std::string>& args) {
//     std::string folder;
//     bool json = false;
//     cli::CommandLine line("ee-convert inspect DIR [--json]", "Shows what a model folder holds.");
//     line.positional("DIR", folder, "model folder").flag("json", json, "print one JSON object");
//     if (!line.parse(args)) return 0;  // --help was asked for and printed
//     ...
//   }
//   int main(int argc, char** argv) {
//     return cli::run_commands({.name = "ee-convert", .summary = "...", .commands = {{"inspect", "...",
//     run_inspect}}},
//                              argc, argv);
//   }
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ee::cli {

// The options of one command. A target that is not named on the command line keeps the value it had, which
// --help shows as the default; an optional stays empty. Targets must outlive parse().
class CommandLine {
 public:
  CommandLine(std::string usage, std::string summary);

  // --name VALUE or --name=VALUE, at most once. `metavar` is what --help calls the value ("DIR", "N").
  CommandLine& value(const std::string& name, const std::string& metavar, std::string& target,
                     const std::string& help);
  CommandLine& value(const std::string& name, const std::string& metavar, int64_t& target,
                     const std::string& help);
  CommandLine& value(const std::string& name, const std::string& metavar, double& target,
                     const std::string& help);
  CommandLine& value(const std::string& name, const std::string& metavar, std::optional<std::string>& target,
                     const std::string& help);
  CommandLine& value(const std::string& name, const std::string& metavar, std::optional<int64_t>& target,
                     const std::string& help);
  CommandLine& value(const std::string& name, const std::string& metavar, std::optional<double>& target,
                     const std::string& help);
  // May be given several times; every value is appended.
  CommandLine& values(const std::string& name, const std::string& metavar, std::vector<std::string>& target,
                      const std::string& help);
  // --name, without a value.
  CommandLine& flag(const std::string& name, bool& target, const std::string& help);
  // The next argument without "--"; required.
  CommandLine& positional(const std::string& metavar, std::string& target, const std::string& help);
  // parse() fails when the option `name`, declared before, is absent.
  CommandLine& required(const std::string& name);

  // Fills the targets. Returns false when --help was there and has been printed: the command ends with 0.
  // UserError: unknown options (all of them, each with the nearest known name), missing or mistyped values,
  // repeated, absent or superfluous arguments.
  bool parse(const std::vector<std::string>& args);

  std::string help() const;

 private:
  struct Option {
    std::string name, metavar, help;  // metavar "": a flag
    std::function<void(const std::string& value)> set;
    bool repeatable = false, required = false, given = false;
  };
  struct Positional {
    std::string metavar, help;
    std::string* target;
  };
  CommandLine& add(Option option);
  Option* find(std::string_view name);
  void accept(const std::string& name, const std::vector<std::string>& values);
  void check_complete(size_t positionals) const;

  std::string usage_, summary_;
  std::vector<Option> options_;
  std::vector<Positional> positionals_;
};

struct Command {
  std::string name;     // "" for what runs when the first argument is an option (or there is none)
  std::string summary;  // one line in the program's --help
  std::function<int(const std::vector<std::string>& args)> run;  // args without the command's name
};

struct Program {
  std::string name;
  std::string summary;
  std::vector<Command> commands;
};

// Dispatches on the first argument and returns the exit code. Answers --version and, unless a command comes
// first, --help; errors are printed to standard error (base::run_program).
int run_commands(const Program& program, int argc, const char* const* argv);

}  // namespace ee::cli
