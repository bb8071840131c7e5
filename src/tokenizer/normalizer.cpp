#include "normalizer.h"

#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "nfc.h"
#include "utf8.h"

namespace ee::tokenizer {
namespace {

// An empty match, which only a regular expression has, inserts the content there.
std::string replace_all(std::string_view text, const Regex& pattern, const std::string& content,
                        Regex::Scratch& scratch) {
  std::string result;
  std::size_t done = 0, at = 0;
  while (at <= text.size()) {
    const auto match = pattern.find(text, at, scratch);
    if (!match) break;
    result.append(text.substr(done, match->begin - done)).append(content);
    done = at = match->end;
    if (match->end > match->begin) continue;
    if (at == text.size()) break;
    at += decode_utf8(text.substr(at)).length;
  }
  return result.append(text.substr(done));
}

}  // namespace

Normalizer::Normalizer(const nlohmann::json& description, const std::string& where) {
  if (!description.is_null()) add(description, where);
}

void Normalizer::add(const nlohmann::json& description, const std::string& where) {
  const std::string type = description.at("type");
  if (type == "Sequence") {
    for (const auto& inner : description.at("normalizers")) add(inner, where);
  } else if (type == "NFC") {
    steps_.push_back({.kind = Step::Kind::nfc});
  } else if (type == "Prepend") {
    steps_.push_back({.kind = Step::Kind::prepend, .content = description.at("prepend")});
  } else if (type == "Replace") {
    steps_.push_back({.kind = Step::Kind::replace,
                      .pattern = Regex::from_json(description.at("pattern"), where),
                      .content = description.at("content")});
  } else {
    throw base::UserError(
        "{}: the normalizer {} is not supported (expected NFC, Prepend, Replace or a Sequence of them)",
        where, type);
  }
}

std::string Normalizer::apply(std::string_view text, Regex::Scratch& scratch) const {
  std::string result(text);
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Step::Kind::nfc:
        result = to_nfc(result);
        break;
      case Step::Kind::prepend:
        if (!result.empty()) result.insert(0, step.content);
        break;
      case Step::Kind::replace:
        result = replace_all(result, *step.pattern, step.content, scratch);
        break;
    }
  }
  return result;
}

}  // namespace ee::tokenizer
