#include "ee/config/exit_spec.h"

#include <algorithm>
#include <map>

#include "checksums_json.h"
#include "ee/base/file.h"
#include "option_visitors.h"

namespace ee::config {

namespace {

template <typename Enum>
Enum parse_name(std::string_view name, const char* what) {
  Problems problems(what);
  const auto value = read_enum<Enum>(name, "", problems);
  problems.throw_if_any();
  return *value;
}

// An exit as a file may spell it: some defaults depend on the kind.
std::vector<ExitSpec> read_exits(const Json& list, Problems& problems) {
  std::vector<ExitSpec> exits;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string path = fmt::format("exits[{}]", i);
    ExitSpec spec;
    if (!list[i].is_object()) {
      problems.add(path, "expected object {...}, got " + describe(list[i]));
    } else {
      ExitSpec defaults;
      JsonReader(list[i], path + ".", {}, problems).read(spec);
      defaults.kind = spec.kind;
      set_defaults_of_kind(defaults);
      if (!list[i].contains("norm")) spec.norm = defaults.norm;
      if (!list[i].contains("translator")) spec.translator = defaults.translator;
    }
    exits.push_back(spec);
  }
  return exits;
}

void check_exit(const ExitSpec& spec, int64_t layers, const std::string& path, Problems& problems) {
  ExitSpec visited = spec;
  OptionChecker checker(path + ".", problems);
  visit(checker, visited);
  const auto expect = [&](bool holds, const char* key, const std::string& text) {
    const std::string option = fmt::format("{}.{}", path, key);
    if (!holds && !problems.mentions(option)) problems.add(option, text);
  };
  expect(spec.layer <= layers, "layer",
         fmt::format("{} is out of range; the model has layers 1 to {}", spec.layer, layers));
  expect(spec.kind != ExitKind::mlp || spec.position == ExitPosition::after, "position",
         "an mlp exit is always after its layer");
  expect(spec.kind != ExitKind::norm || spec.norm != NormKind::none, "norm",
         "a norm exit has a norm; without one it is kind embedding");
  expect(spec.kind != ExitKind::linear || spec.has_translator(), "translator",
         "a linear exit has a translator; without one it is kind norm");
  expect(
      spec.init != InitKind::fit || spec.has_linear_last_step(), "init",
      fmt::format("there is nothing to fit in an exit of kind {} without a translator; give it one, or use "
                  "kind linear or mlp",
                  name_of(spec.kind)));
}

// Checks in the order of the file, so that positions in messages are the reader's.
void check_exits(const std::vector<ExitSpec>& exits, int64_t layers, Problems& problems) {
  if (exits.empty() && !problems.mentions("exits")) problems.add("exits", "names no exit; give at least one");
  std::map<int64_t, std::size_t> first;
  for (std::size_t i = 0; i < exits.size(); ++i) {
    const std::string path = fmt::format("exits[{}]", i);
    check_exit(exits[i], layers, path, problems);
    const auto [other, fresh] = first.emplace(exits[i].layer, i);
    if (!fresh && !problems.mentions(path + ".layer"))
      problems.add(path + ".layer", fmt::format("layer {} has an exit already, exits[{}]; one exit a layer",
                                                exits[i].layer, other->second));
  }
}

void sort_exits(std::vector<ExitSpec>& exits) {
  std::sort(exits.begin(), exits.end(),
            [](const ExitSpec& a, const ExitSpec& b) { return a.layer < b.layer; });
}

constexpr int64_t kWithoutChecksums = 1, kWithChecksums = 2;  // format_version

// The keys beside "exits" and "checksums", which are read by themselves.
struct ExitsHeader {
  int64_t format_version = kWithChecksums;
  std::string backbone_fingerprint;
  std::vector<QualityLevel> quality = {};
};

template <typename Visitor>
void visit(Visitor& v, ExitsHeader& o) {
  v(o.format_version, "format_version", "of ee_config.json");
  v(o.backbone_fingerprint, "backbone_fingerprint", "of the model that the exits were made for");
  v.list(o.quality, "quality", "thresholds for wanted agreements");
}

// A level has a rule for each of the exits, in their order.
void check_quality(ExitsHeader header, const std::vector<ExitSpec>& exits, Problems& problems) {
  OptionChecker checker("", problems);
  visit(checker, header);
  const auto same_layer = [](const ExitRule& rule, const ExitSpec& exit) { return rule.layer == exit.layer; };
  for (std::size_t i = 0; i < header.quality.size(); ++i)
    if (!std::ranges::equal(header.quality[i].exits, exits, same_layer))
      problems.add(fmt::format("quality[{}].exits", i),
                   "are not the model's exits; calibrate again with ee-tune calibrate");
}

std::vector<ExitSpec> take_exits(Json& file, int64_t layers, Problems& problems) {
  const auto found = file.find("exits");
  const Json list = found == file.end() ? Json() : std::move(*found);
  file.erase("exits");
  if (!list.is_array())
    problems.add("exits", list.is_null() ? "required, but missing" : "expected list, got " + describe(list));
  std::vector<ExitSpec> exits = list.is_array() ? read_exits(list, problems) : std::vector<ExitSpec>{};
  check_exits(exits, layers, problems);
  sort_exits(exits);
  return exits;
}

}  // namespace

std::string_view to_string(ExitKind value) { return name_of(value); }
std::string_view to_string(ExitPosition value) { return name_of(value); }
std::string_view to_string(HeadKind value) { return name_of(value); }
std::string_view to_string(NormKind value) { return name_of(value); }
std::string_view to_string(InitKind value) { return name_of(value); }
std::string_view to_string(TranslatorKind value) { return name_of(value); }

ExitKind parse_exit_kind(std::string_view name) { return parse_name<ExitKind>(name, "exit kind"); }
ExitPosition parse_exit_position(std::string_view name) {
  return parse_name<ExitPosition>(name, "exit position");
}
HeadKind parse_head_kind(std::string_view name) { return parse_name<HeadKind>(name, "exit head"); }
NormKind parse_norm_kind(std::string_view name) { return parse_name<NormKind>(name, "exit norm"); }
InitKind parse_init_kind(std::string_view name) { return parse_name<InitKind>(name, "exit init"); }
TranslatorKind parse_translator_kind(std::string_view name) {
  return parse_name<TranslatorKind>(name, "exit translator");
}

void set_defaults_of_kind(ExitSpec& spec) {
  if (spec.kind == ExitKind::embedding) spec.norm = NormKind::none;
  if (spec.kind == ExitKind::linear) spec.translator = TranslatorKind::full;
}

std::vector<ExitSpec> read_exit_specs(const std::filesystem::path& file, int64_t layers) {
  Json object = parse_object(base::read_text_file(file), file.string(), Comments::allowed);
  Problems problems(file.string());
  std::vector<ExitSpec> exits = take_exits(object, layers, problems);
  for (const auto& [key, value] : object.items())
    problems.add(key, "unknown key; this file has one key, exits");
  problems.throw_if_any();
  return exits;
}

void validate_exits(std::vector<ExitSpec>& exits, int64_t layers, std::string_view origin) {
  Problems problems(origin);
  check_exits(exits, layers, problems);
  problems.throw_if_any();
  sort_exits(exits);
}

std::string write_exits_config(const ExitsConfig& config) {
  Json object =
      JsonWriter::write(ExitsHeader{.format_version = config.checksums ? kWithChecksums : kWithoutChecksums,
                                    .backbone_fingerprint = config.backbone_fingerprint,
                                    .quality = config.quality});
  if (config.quality.empty()) object.erase("quality");
  object["exits"] = Json::array();
  for (const auto& spec : config.exits) object["exits"].push_back(JsonWriter::write(spec));
  if (config.checksums) object[kChecksumsKey] = write_checksums(*config.checksums);
  return print(object);
}

ExitsConfig read_exits_config(const std::filesystem::path& file, int64_t layers) {
  Json object = read_object(file);
  const auto version = object.find("format_version");
  if (version == object.end() || (*version != kWithoutChecksums && *version != kWithChecksums))
    throw base::UserError(
        "{}: format_version {} is unknown; this program reads versions {} and {}. Was the file written by a "
        "newer one?",
        file.string(), version == object.end() ? "(missing)" : describe(*version), kWithoutChecksums,
        kWithChecksums);
  const bool has_checksums = *version == kWithChecksums;
  Problems problems(file.string());
  ExitsConfig config{
      .exits = take_exits(object, layers, problems), .backbone_fingerprint = "", .quality = {}};
  if (has_checksums) config.checksums = take_checksums(object, problems);
  ExitsHeader header;
  JsonReader(object, "", {}, problems).read(header);
  if (!object.contains("backbone_fingerprint")) problems.add("backbone_fingerprint", "required, but missing");
  check_quality(header, config.exits, problems);
  problems.throw_if_any();
  config.backbone_fingerprint = header.backbone_fingerprint;
  config.quality = std::move(header.quality);
  return config;
}

}  // namespace ee::config
