#include "tune_reference.h"

#include <cmath>

#include "ee/config/tune_config.h"
#include "json_value.h"

namespace ee::config {

namespace {

class LineCollector {
 public:
  LineCollector(std::string prefix, std::vector<OptionLine>& lines)
      : prefix_(std::move(prefix)), lines_(lines) {}

  template <typename T>
  void operator()(const T& field, const char* key, const char* meaning, const Limits& limits = {}) {
    std::string type = type_text<T>();
    if (std::isfinite(limits.min)) type = fmt::format("{} {}", type, limits.text());
    const Json value = write_value(field);
    lines_.push_back({prefix_ + key, type,
                      limits.required && field == T{} ? "required"
                      : value.is_null()               ? "none"
                                                      : value.dump(),
                      meaning});
  }

  template <typename Section>
  void section(Section& section, const char* key, const char*) {
    LineCollector collector(prefix_ + key + ".", lines_);
    visit(collector, section);
  }

  template <typename Element>
  void list(std::vector<Element>&, const char* key, const char* meaning) {
    lines_.push_back({prefix_ + key, "list of objects", "[]", meaning});
    Element element;
    LineCollector collector(fmt::format("{}{}[].", prefix_, key), lines_);
    visit(collector, element);
  }

 private:
  std::string prefix_;
  std::vector<OptionLine>& lines_;
};

}  // namespace

std::vector<OptionLine> tune_option_lines() {
  std::vector<OptionLine> lines;
  TuneOptions defaults;
  LineCollector collector("", lines);
  visit(collector, defaults);
  return lines;
}

std::string tune_reference_markdown() {
  std::string text = "| key | type | default | meaning |\n|---|---|---|---|\n";
  for (const auto& line : tune_option_lines())
    text +=
        fmt::format("| `{}` | {} | `{}` | {} |\n", line.path, line.type, line.default_value, line.meaning);
  return text;
}

}  // namespace ee::config
