#include "end_of_turn.h"

#include <algorithm>
#include <array>
#include <set>
#include <unordered_map>

#include "ee/base/error.h"

namespace ee::checkpoint {
using format::GgufFile;

namespace {

// Texts that end a turn in some family, whether the file calls the token control or not.
constexpr std::array kEnds = {"<|eot_id|>",
                              "<|im_end|>",
                              "<|end|>",
                              "<|return|>",
                              "<|call|>",
                              "<|flush|>",
                              "<|calls|>",
                              "<end_of_turn>",
                              "</s>",
                              "<|eom_id|>",
                              "<EOT>",
                              "<|endoftext|>",
                              "_<EOT>",
                              "[EOT]",
                              "[EOS]",
                              "<eos>",
                              "<turn|>",
                              "<|end_of_text|>",
                              "[e~[",
                              "<end_of_utterance>",
                              "<|tool_response>",
                              "<｜end▁of▁sentence｜>"};

// Tokens of infilling after which nothing of the answer comes. Only one token has each role: the key's, or
// else the first of these texts that the vocabulary has.
struct InfillingEnd {
  const char* role;
  std::array<const char*, 5> texts;
};
constexpr std::array<InfillingEnd, 3> kInfillingEnds = {
    {{"fim_pad", {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
     {"fim_rep", {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
     {"fim_sep", {"<|file_sep|>"}}}};

// Token ids by text; of two equal texts the later one.
class Vocabulary {
 public:
  Vocabulary(const GgufFile& file, int64_t vocab_size) {
    const auto* tokens = file.find<std::vector<std::string>>("tokenizer.ggml.tokens");
    if (!tokens) return;
    const size_t count = std::min(tokens->size(), static_cast<size_t>(vocab_size));
    for (size_t id = 0; id < count; ++id) ids_[(*tokens)[id]] = static_cast<int64_t>(id);
  }
  std::optional<int64_t> find(std::string_view text) const {
    const auto found = ids_.find(text);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  std::unordered_map<std::string_view, int64_t> ids_;
};

std::optional<int64_t> first_of(const Vocabulary& vocabulary, const std::array<const char*, 5>& texts) {
  for (const char* text : texts)
    if (const auto id = text ? vocabulary.find(text) : std::nullopt) return id;
  return std::nullopt;
}

// Vocabularies that spell something else with a text of kEnds.
void erase_exceptions(const Vocabulary& vocabulary, std::set<int64_t>& ends) {
  const auto ends_at = [&](const char* text) {
    const auto id = vocabulary.find(text);
    return id && ends.contains(*id);
  };
  const auto erase = [&](const char* text) {
    if (const auto id = vocabulary.find(text)) ends.erase(*id);
  };
  // A turn of several channels: <|end|> ends only one of them.
  const bool calls = ends_at("<|call|>") || ends_at("<|calls|>");
  if (calls && (ends_at("<|return|>") || ends_at("<|flush|>"))) erase("<|end|>");
  // </s> is a piece of text there.
  if (ends_at("<|tool_response>") || ends_at("<|plamo:eos|>")) erase("</s>");
}

}  // namespace

std::optional<int64_t> find_special_token(const GgufFile& file, std::string_view role, int64_t vocab_size) {
  const std::string key = fmt::format("tokenizer.ggml.{}_token_id", role);
  const auto* value = file.find<int64_t>(key);
  if (!value) return std::nullopt;
  if (*value < 0 || *value >= vocab_size)
    throw base::UserError("{}: {} is {}, but the vocabulary has {} tokens", file.path().string(), key, *value,
                          vocab_size);
  return *value;
}

std::vector<int64_t> end_of_turn_tokens(const GgufFile& file, int64_t vocab_size) {
  const Vocabulary vocabulary(file, vocab_size);
  std::set<int64_t> ends;
  const auto add = [&](std::optional<int64_t> id) {
    if (id) ends.insert(*id);
  };
  for (const auto& [role, texts] : kInfillingEnds) {
    const auto id = find_special_token(file, role, vocab_size);
    add(id ? id : first_of(vocabulary, texts));
  }
  for (const char* text : kEnds) add(vocabulary.find(text));
  const auto end_of_text = find_special_token(file, "eos", vocab_size);
  add(end_of_text);
  for (const char* role : {"eot", "eom"}) add(find_special_token(file, role, vocab_size));
  erase_exceptions(vocabulary, ends);

  std::vector<int64_t> result;
  if (end_of_text && ends.erase(*end_of_text) > 0) result.push_back(*end_of_text);
  result.insert(result.end(), ends.begin(), ends.end());
  return result;
}

}  // namespace ee::checkpoint
