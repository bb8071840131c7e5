#include "end_of_turn.h"

#include "ee/base/error.h"
#include "gguf_writer.h"

namespace ee::checkpoint {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

using Keys = std::map<std::string, uint32_t>;  // role -> token

std::vector<int64_t> ends(const std::vector<std::string>& tokens, const Keys& keys = {},
                          int64_t vocab_size = 1000) {
  const TempFolder folder;
  GgufWriter gguf;
  gguf.set("tokenizer.ggml.tokens", tokens);
  for (const auto& [role, id] : keys) gguf.set("tokenizer.ggml." + role + "_token_id", id);
  gguf.write(folder / "a.gguf");
  return end_of_turn_tokens(format::GgufFile(folder / "a.gguf"), vocab_size);
}

// The expected sets are those that llama.cpp prints as "EOG token" for these models, in their order of ids.
TEST(EndOfTurn, IsWhatLlamaCppStopsAt) {
  const std::vector<std::string> qwen25 = {"a",
                                           "<|endoftext|>",
                                           "<|im_start|>",
                                           "<|im_end|>",
                                           "<|fim_prefix|>",
                                           "<|fim_middle|>",
                                           "<|fim_suffix|>",
                                           "<|fim_pad|>",
                                           "<|repo_name|>",
                                           "<|file_sep|>"};
  EXPECT_THAT(ends(qwen25, {{"eos", 3}}), ElementsAre(3, 1, 7, 8, 9));
  EXPECT_THAT(ends(qwen25, {{"eos", 1}}), ElementsAre(1, 3, 7, 8, 9)) << "a base model's end of text";
  const std::vector<std::string> llama3 = {
      "a",          "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
      "<|eom_id|>", "<|eot_id|>"};
  EXPECT_THAT(ends(llama3, {{"eos", 2}}), ElementsAre(2, 5, 6));
  EXPECT_THAT(ends(llama3, {{"eos", 6}, {"eot", 6}}), ElementsAre(6, 2, 5));
  EXPECT_THAT(ends({"<unk>", "<s>", "</s>", "a"}, {{"eos", 2}}), ElementsAre(2));
  EXPECT_THAT(ends({"<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"}, {{"eos", 1}}),
              ElementsAre(1, 4));
}

TEST(EndOfTurn, KeysCountWhateverTheTextIs) {
  const std::vector<std::string> tokens = {"a", "b", "c", "d", "e", "f", "g"};
  EXPECT_THAT(ends(tokens, {{"eot", 5}, {"eom", 3}, {"eos", 4}, {"fim_pad", 1}, {"bos", 0}}),
              ElementsAre(4, 1, 3, 5));
  EXPECT_THAT(ends(tokens), IsEmpty());
}

TEST(EndOfTurn, OneTokenForEachRoleOfInfilling) {
  EXPECT_THAT(ends({"a", "[PAD]", "<PAD>"}), ElementsAre(2)) << "the first text that is known";
  EXPECT_THAT(ends({"a", "[PAD]", "<PAD>"}, {{"fim_pad", 0}}), ElementsAre(0)) << "the key's, and no other";
}

TEST(EndOfTurn, ExceptionsAreLlamaCpps) {
  EXPECT_THAT(ends({"<|end|>", "<|return|>", "<|call|>"}), ElementsAre(1, 2)) << "gpt-oss: a channel's end";
  EXPECT_THAT(ends({"<|end|>", "<|flush|>", "<|calls|>"}), ElementsAre(1, 2));
  EXPECT_THAT(ends({"<|end|>", "<|return|>"}), ElementsAre(0, 1));
  EXPECT_THAT(ends({"</s>", "<|tool_response>", "<turn|>"}), ElementsAre(1, 2)) << "Gemma 4: </s> is text";
  EXPECT_THAT(ends({"</s>", "a", "<|plamo:eos|>"}, {{"eos", 2}}), ElementsAre(2));
}

TEST(EndOfTurn, OnlyTokensThatHaveARowCount) {
  EXPECT_THAT(ends({"a", "</s>", "<|im_end|>"}, {}, 2), ElementsAre(1));
  EXPECT_THAT(
      [] {
        ends({"a", "b"}, {{"eot", 2}}, 2);
      },
      ThrowsMessage<base::UserError>(HasSubstr("tokenizer.ggml.eot_token_id is 2, but the vocabulary")));
}

}  // namespace
}  // namespace ee::checkpoint
