#include "pre_tokenizer.h"

#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "known_regexes.h"
#include "utf8.h"

namespace ee::tokenizer {

using base::UserError;

PreTokenizer::PreTokenizer(const nlohmann::json& description, const std::string& where) {
  if (!description.is_null()) add(description, where);
}

void PreTokenizer::add(const nlohmann::json& description, const std::string& where) {
  const std::string type = description.at("type");
  if (type == "Sequence") {
    for (const auto& inner : description.at("pretokenizers")) add(inner, where);
    return;
  }
  if (byte_level_) {
    throw UserError("{}: {} after ByteLevel in the pre-tokenizer is not supported", where, type);
  }
  if (type == "ByteLevel") {
    byte_level_ = true;
    Step step{.add_prefix_space = description.value("add_prefix_space", true)};
    if (description.value("use_regex", true)) step.regex.emplace(kGpt2Regex, where);
    if (step.regex || step.add_prefix_space) steps_.push_back(std::move(step));
  } else if (type == "Digits") {
    const bool individual = description.value("individual_digits", false);
    steps_.push_back({.regex = Regex(R"(\p{N})", where),
                      .behavior = individual ? Behavior::isolated : Behavior::contiguous});
  } else if (type == "Split") {
    steps_.push_back(split_step(description, where));
  } else if (type == "Metaspace") {
    steps_.push_back(metaspace_step(description, where));
  } else {
    throw UserError(
        "{}: the pre-tokenizer {} is not supported (expected ByteLevel, Split, Digits, Metaspace or a "
        "Sequence "
        "of them)",
        where, type);
  }
}

PreTokenizer::Step PreTokenizer::metaspace_step(const nlohmann::json& description, const std::string& where) {
  const std::string scheme = description.value("prepend_scheme", "always");
  const auto old_flag = description.find("add_prefix_space");
  if (old_flag != description.end() && *old_flag == false && scheme != "never") {
    throw UserError(
        "{}: Metaspace has add_prefix_space false and prepend_scheme {}, which contradict each other", where,
        scheme);
  }
  Metaspace metaspace{.prepend = Metaspace::Prepend::never, .replacement = description.at("replacement")};
  if (scheme == "always") {
    metaspace.prepend = Metaspace::Prepend::always;
  } else if (scheme == "first") {
    metaspace.prepend = Metaspace::Prepend::first;
  } else if (scheme != "never") {
    throw UserError("{}: Metaspace's prepend_scheme {} is not known (expected always, first or never)", where,
                    scheme);
  }
  Step step{.behavior = Behavior::merged_with_next};
  if (description.value("split", true)) step.regex.emplace(Regex::literal(metaspace.replacement, where));
  step.metaspace = std::move(metaspace);
  return step;
}

std::string PreTokenizer::Metaspace::apply(std::string_view text, bool first) const {
  std::string result;
  const bool wanted = prepend == Prepend::always || (prepend == Prepend::first && first);
  if (wanted && !text.starts_with(' ') && !text.starts_with(replacement)) result = replacement;
  result.reserve(text.size() + text.size() / 2);
  for (const char byte : text) byte == ' ' ? result += replacement : result += byte;
  return result;
}

PreTokenizer::Step PreTokenizer::split_step(const nlohmann::json& description,
                                            const std::string& where) const {
  Step step{.behavior = behavior_from(description.at("behavior"), where),
            .invert = description.value("invert", false)};
  step.regex.emplace(Regex::from_json(description.at("pattern"), where));
  return step;
}

PreTokenizer::Behavior PreTokenizer::behavior_from(const std::string& name, const std::string& where) {
  if (name == "Isolated") return Behavior::isolated;
  if (name == "Removed") return Behavior::removed;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  throw UserError("{}: the Split behavior {} is not known", where, name);
}

void PreTokenizer::run(std::size_t index, std::string_view text, bool first, Regex::Scratch& scratch,
                       const Word& word) const {
  if (index == steps_.size()) return word(text);
  const Step& step = steps_[index];
  std::string changed;
  if (step.metaspace) {
    text = changed = step.metaspace->apply(text, first);
  } else if (step.add_prefix_space && !text.empty() && text[0] != ' ') {
    text = changed.append(1, ' ').append(text);
  }
  if (index + 1 == steps_.size()) return cut(step, text, scratch, word);
  const char* const begin = text.data();
  cut(step, text, scratch, [&, begin](std::string_view piece) {
    run(index + 1, piece, first && piece.data() == begin, scratch, word);
  });
}

void PreTokenizer::cut(const Step& step, std::string_view text, Regex::Scratch& scratch,
                       const Word& piece) const {
  if (!step.regex) return piece(text);
  // The last piece is held back, because the behavior may join the next one to it.
  std::size_t held_begin = 0, held_end = 0;
  bool previous_delimiter = false;
  const auto flush = [&] {
    if (held_begin < held_end) piece(text.substr(held_begin, held_end - held_begin));
  };
  const auto take = [&](std::size_t begin, std::size_t end, bool matched) {
    const bool delimiter = matched != step.invert;
    const bool joins =
        (step.behavior == Behavior::contiguous && delimiter == previous_delimiter) ||
        (step.behavior == Behavior::merged_with_previous && delimiter && !previous_delimiter) ||
        (step.behavior == Behavior::merged_with_next && !delimiter && previous_delimiter);
    previous_delimiter = delimiter;
    if (!joins) {
      flush();
      held_begin = begin;
    }
    held_end = step.behavior == Behavior::removed && delimiter ? begin : end;
  };
  std::size_t done = 0, at = 0;
  while (at < text.size()) {
    const auto match = step.regex->find(text, at, scratch);
    if (!match) break;
    if (match->begin > done) take(done, match->begin, false);
    if (match->end > match->begin) take(match->begin, match->end, true);
    done = match->end;
    at = match->end;
    if (match->end == match->begin && at < text.size()) at += decode_utf8(text.substr(at)).length;
  }
  if (done < text.size()) take(done, text.size(), false);
  flush();
}

}  // namespace ee::tokenizer
