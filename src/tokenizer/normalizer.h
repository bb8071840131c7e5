// What happens to a text before it is cut into words: the `normalizer` of tokenizer.json.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "regex.h"

namespace ee::tokenizer {

class Normalizer {
 public:
  // `description` is null, NFC, Prepend, Replace (of a text or a regular expression) or a Sequence of them.
  // UserError with `where` names anything else.
  Normalizer(const nlohmann::json& description, const std::string& where);

  bool changes_nothing() const { return steps_.empty(); }
  // `text` must be valid UTF-8, and the result is.
  std::string apply(std::string_view text, Regex::Scratch& scratch) const;

 private:
  struct Step {
    enum class Kind { nfc, prepend, replace } kind;
    std::optional<Regex> pattern = std::nullopt;  // what `replace` looks for
    std::string content = {};                     // what it puts there, or what `prepend` puts in front
  };

  void add(const nlohmann::json& description, const std::string& where);

  std::vector<Step> steps_;
};

}  // namespace ee::tokenizer
