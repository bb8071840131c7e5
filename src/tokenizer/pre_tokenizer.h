// Cuts text into the words that BPE works on: the `pre_tokenizer` of tokenizer.json.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "regex.h"

namespace ee::tokenizer {

class PreTokenizer {
 public:
  // `description` is null or made of Split, Digits, Metaspace and, at the end, ByteLevel. UserError with
  // `where` names anything else.
  PreTokenizer(const nlohmann::json& description, const std::string& where);

  // Whether words are spelled in the byte alphabet (there is a ByteLevel), not in characters.
  bool byte_level() const { return byte_level_; }

  using Word = std::function<void(std::string_view)>;
  // Calls back for each word in order, as raw bytes. A word is valid only during the call. `text` is valid
  // UTF-8; `first` says that nothing stands before it, which is where Metaspace's scheme "first" puts a
  // space.
  void split(std::string_view text, bool first, Regex::Scratch& scratch, const Word& word) const {
    run(0, text, first, scratch, word);
  }

 private:
  enum class Behavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };

  // Makes spaces visible and puts one in front.
  struct Metaspace {
    enum class Prepend { never, first, always } prepend;
    std::string replacement;  // one character

    std::string apply(std::string_view text, bool first) const;
  };

  struct Step {
    bool add_prefix_space = false;
    std::optional<Metaspace> metaspace = std::nullopt;
    std::optional<Regex> regex = std::nullopt;  // none: the text stays whole
    Behavior behavior = Behavior::isolated;
    bool invert = false;  // the regex matches what is between the delimiters
  };

  void add(const nlohmann::json& description, const std::string& where);
  Step split_step(const nlohmann::json& description, const std::string& where) const;
  static Behavior behavior_from(const std::string& name, const std::string& where);
  static Step metaspace_step(const nlohmann::json& description, const std::string& where);
  void run(std::size_t step, std::string_view text, bool first, Regex::Scratch& scratch,
           const Word& word) const;
  void cut(const Step& step, std::string_view text, Regex::Scratch& scratch, const Word& piece) const;

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace ee::tokenizer
