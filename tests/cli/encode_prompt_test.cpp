#include <gtest/gtest.h>

#include "data/byte_tokenizer.h"
#include "ee/base/error.h"
#include "infer_generate.h"

namespace ee::cli {
namespace {

constexpr int64_t kBos = 256;

// Puts a BOS in front of plain text.
class ChatTokenizer : public data::ByteTokenizer {
 public:
  explicit ChatTokenizer(const std::string& chat_template) : ByteTokenizer("bytes", /*with_bos=*/true) {
    chat_template_.source = chat_template;
    chat_template_.variables = {{"bos_token", "B"}};
  }
};

std::vector<int64_t> tokens_of(std::string_view text) { return {text.begin(), text.end()}; }

}  // namespace

TEST(EncodePrompt, AChatHasTheBosThatItsTemplateWritesAndNoOther) {
  GenerateArguments arguments;
  arguments.chat = true;
  const ChatTokenizer writes_bos("{{ bos_token }}{{ messages[-1].content }}:");
  EXPECT_EQ(encode_prompt(arguments, "hi", writes_bos), tokens_of("Bhi:"));
  EXPECT_EQ(encode_prompt(arguments, "hi", ChatTokenizer("{{ messages[0].content }}:")), tokens_of("hi:"));
  arguments.system.emplace("s");
  EXPECT_EQ(encode_prompt(arguments, "hi", ChatTokenizer("{{ messages|length }}{{ messages[0].role }}")),
            tokens_of("2system"));
}

TEST(EncodePrompt, PlainTextHasTheTokenizersBos) {
  std::vector<int64_t> expected = tokens_of("hi");
  expected.insert(expected.begin(), kBos);
  EXPECT_EQ(encode_prompt({}, "hi", ChatTokenizer("{{ bos_token }}")), expected);
}

TEST(EncodePrompt, AModelWithoutATemplateCannotChat) {
  GenerateArguments arguments;
  arguments.chat = true;
  EXPECT_THROW(encode_prompt(arguments, "hi", ChatTokenizer("")), base::UserError);
}

}  // namespace ee::cli
