#include "ee/config/tune_config.h"

#include "ee/base/file.h"
#include "option_visitors.h"
#include "tune_checks.h"
#include "tune_reference.h"

namespace ee::config {

namespace {

std::vector<std::string> option_paths() {
  std::vector<std::string> paths;
  for (const auto& line : tune_option_lines()) paths.push_back(line.path);
  return paths;
}

// "optimizer.lr=3e-4" -> {"optimizer": {"lr": 3e-4}}
Json parse_set(const std::string& set) {
  const auto equals = set.find('=');
  if (equals == std::string::npos || equals == 0)
    throw base::UserError("--set {}: expected key=value, for example --set optimizer.lr=3e-4", set);
  const std::string text = set.substr(equals + 1);
  Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) value = text;
  std::vector<std::string> keys = base::split(std::string_view(set).substr(0, equals), '.');
  for (auto key = keys.rbegin(); key != keys.rend(); ++key) {
    Json section = Json::object();
    section[*key] = std::move(value);
    value = std::move(section);
  }
  return value;
}

}  // namespace

TuneOptions parse_tune_config(std::string_view json_text, std::string_view origin,
                              const std::vector<std::string>& sets) {
  const Json file = parse_object(json_text, origin, Comments::allowed);
  const auto paths = option_paths();
  Problems problems(origin);
  TuneOptions options;
  JsonReader(file, "", paths, problems).read(options);
  problems.set_source("--set ");
  for (const auto& set : sets) {
    const Json override = parse_set(set);
    JsonReader(override, "", paths, problems).read(options);
  }
  problems.set_source("");
  check_options(options, problems);
  problems.throw_if_any();
  return options;
}

TuneOptions read_tune_config(const std::filesystem::path& file, const std::vector<std::string>& sets) {
  return parse_tune_config(base::read_text_file(file), file.string(), sets);
}

std::string print_tune_config(const TuneOptions& options) { return print(JsonWriter::write(options)); }

void validate(const TuneOptions& options, std::string_view origin) {
  Problems problems(origin);
  check_options(options, problems);
  problems.throw_if_any();
}

}  // namespace ee::config
