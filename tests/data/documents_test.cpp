#include "ee/data/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <fstream>
#include <set>

#include "data/byte_tokenizer.h"
#include "ee/base/error.h"
#include "ee/tokenizer/ids_only.h"

namespace ee::data {
namespace fs = std::filesystem;
using base::UserError;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

class Documents : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, std::string_view text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  static std::vector<std::vector<int64_t>> ids(const fs::path& file, const tokenizer::Tokenizer& tokenizer) {
    std::vector<std::vector<int64_t>> documents;
    for_each_document(
        file, [&](const Document& document) { documents.push_back(document_tokens(document, tokenizer)); });
    return documents;
  }

  fs::path folder_ = fs::path(testing::TempDir()) / fmt::format("ee-documents-{}", ::getpid());
};

struct EndingTokenizer : ByteTokenizer {
  EndingTokenizer() : ByteTokenizer("ending", /*with_bos=*/true) { eos_ = 10; }
};

TEST_F(Documents, TokensOfALineAreItsIdsWhateverItsTextSays) {
  const auto file = write("a.jsonl", R"({"text": "no", "tokens": [256, 7, 9]})"
                                     "\n"
                                     R"({"tokens": []})"
                                     "\n"
                                     R"({"text": "hi"})");
  EXPECT_THAT(ids(file, EndingTokenizer()), ElementsAre(ElementsAre(256, 7, 9), ElementsAre(256, 'h', 'i')));
}

TEST_F(Documents, AnEndTokenBehindTokensIsLeftToTheSeparator) {
  const auto file = write("a.jsonl", R"({"tokens": [1, 10, 2, 10]})");
  EXPECT_THAT(ids(file, EndingTokenizer()), ElementsAre(ElementsAre(1, 10, 2)));
  EXPECT_THAT(ids(file, ByteTokenizer()), ElementsAre(ElementsAre(1, 10, 2, 10))) << "no end token";
}

TEST_F(Documents, BadTokensAreNamed) {
  const auto fails = [&](std::string_view line, const char* message) {
    const auto file = write("bad.jsonl", line);
    EXPECT_THAT([&] { ids(file, ByteTokenizer()); }, ThrowsMessage<UserError>(HasSubstr(message)));
  };
  fails(R"({"tokens": "1 2"})", "bad.jsonl:1: \"tokens\" is not an array of whole numbers");
  fails(R"({"tokens": [1, 2], "prompt_tokens": 3})",
        "bad.jsonl:1: \"prompt_tokens\" is 3, expected how many of the record's 2 tokens are the prompt");
  fails(R"({"tokens": [1, 2], "prompt_tokens": -1})",
        "bad.jsonl:1: \"prompt_tokens\" is -1, expected how many");
  fails(R"({"tokens": [1, 2], "prompt_tokens": "1"})", "bad.jsonl:1: \"prompt_tokens\" is \"1\", expected");
  fails(R"({"text": "x", "prompt_tokens": 1})",
        "bad.jsonl:1: \"prompt_tokens\" counts ids, but there are no");
  fails(R"({"tokens": [1.5]})", "bad.jsonl:1: \"tokens\" is not an array of whole numbers");
  fails(R"({"tokens": [1, 257]})", "bad.jsonl:1: token 257 is outside the tokenizer's vocabulary of 257");
  fails(R"({"tokens": [-1]})", "bad.jsonl:1: token -1 is outside");
}

TEST_F(Documents, PromptsAreLinesOrThePromptsOfJsonLines) {
  EXPECT_THAT(read_prompts(write("a.txt", "one\r\n\ntwo  \nthree")), ElementsAre("one", "two  ", "three"));
  EXPECT_THAT(read_prompts(write("a.jsonl", "{\"prompt\": \"x\\ny\"}\n{\"prompt\": \"z\", \"id\": 1}\n")),
              ElementsAre("x\ny", "z"));
  EXPECT_THAT([&] { read_prompts(write("b.txt", "\n\n")); },
              ThrowsMessage<UserError>(HasSubstr("b.txt holds no prompts")));
  EXPECT_THAT([&] { read_prompts(write("c.txt", "caf\xe9")); },
              ThrowsMessage<UserError>(HasSubstr("not UTF-8")));
  EXPECT_THAT([&] { read_prompts(write("d.jsonl", "{\"text\": \"x\"}")); },
              ThrowsMessage<UserError>(
                  HasSubstr("d.jsonl: no record has a key \"prompt\"; the first one has \"text\"")));
}

TEST_F(Documents, NullIsAsIfTheKeyWereNotThere) {
  const auto file = write("a.json", R"([{"text": "a", "tokens": null, "prompt_tokens": null},
                                        {"text": null, "tokens": [7], "prompt_tokens": null}])");
  EXPECT_THAT(ids(file, ByteTokenizer()), ElementsAre(ElementsAre('a'), ElementsAre(7)));
}

TEST_F(Documents, PromptsAreReadFromEveryKindOfRecords) {
  EXPECT_THAT(
      read_prompts(write("a.json", "\xEF\xBB\xBF[{\"prompt\": \"x\"},\n{\"prompt\": null}, \"y\", {}]")),
      ElementsAre("x", "y"));
  EXPECT_THAT(read_prompts(write("b.NDJSON", "{\"prompt\": \"x\"}\n")), ElementsAre("x"));
  EXPECT_THAT(read_prompts(write("c.txt", "{\"id\": 1, \"prompt\": \"x\"}\n")), ElementsAre("x"));
  EXPECT_THAT(read_prompts(write("d.txt", "\xEF\xBB\xBFone\r\ntwo\r\n")), ElementsAre("one", "two"));
  EXPECT_THAT(
      [&] { read_prompts(write("e.json", "[{\"prompt\": 5}]")); },
      ThrowsMessage<UserError>(HasSubstr("e.json:1 (record 1): \"prompt\" is number, expected a string")));
  EXPECT_THAT([&] { read_prompts(write("f.csv", "prompt\nx\n")); },
              ThrowsMessage<UserError>(HasSubstr("f.csv is not read: it is a table")));
}

TEST_F(Documents, TextIsTextWhateverTheFileIsCalled) {
  EXPECT_EQ(read_text(write("a.json", "\xEF\xBB\xBF{\"text\": 1}\r\n")), "{\"text\": 1}\r\n");
  EXPECT_THAT([&] { read_text(write("b.txt", "\xFF\xFEh")); }, ThrowsMessage<UserError>(HasSubstr("UTF-16")));
  EXPECT_THAT([&] { as_text("caf\xe9", "the prompt"); },
              ThrowsMessage<UserError>(HasSubstr("the prompt: not UTF-8 text: byte 0xe9 at offset 3")));
}

TEST_F(Documents, IdsNeedNoTokenizerAndTextNamesWhatIsMissing) {
  const std::vector<int64_t> ends = {10, 11};
  const auto ids_only = tokenizer::make_ids_only_tokenizer(folder_, 20, ends);
  EXPECT_FALSE(tokenizer::has_tokenizer(folder_));
  EXPECT_THAT(ids(write("a.jsonl", R"({"tokens": [1, 19, 10]})"), *ids_only),
              ElementsAre(ElementsAre(1, 19)));
  EXPECT_THAT([&] { ids(write("b.jsonl", R"({"tokens": [20]})"), *ids_only); },
              ThrowsMessage<UserError>(HasSubstr("token 20 is outside")));
  EXPECT_THAT(
      [&] { ids(write("c.jsonl", R"({"text": "x"})"), *ids_only); },
      ThrowsMessage<UserError>(testing::AllOf(HasSubstr("c.jsonl:1: this is text"),
                                              HasSubstr("neither tokenizer.json nor tokenizer.model"))));
}

// configs/prompts.txt is trained on, prompts-held-out.txt measured on.
TEST(ShippedPrompts, AreManyAllDifferentAndApart) {
  const auto prompts = read_prompts(EE_SOURCE_DIR "/configs/prompts.txt");
  const auto held_out = read_prompts(EE_SOURCE_DIR "/configs/prompts-held-out.txt");
  EXPECT_GE(prompts.size(), 500u);
  EXPECT_EQ(held_out.size(), 60u);
  std::set<std::string> seen;
  for (const auto* file : {&prompts, &held_out}) {
    for (const std::string& prompt : *file) {
      std::string plain;  // without what would make two alike prompts differ
      for (const char c : prompt)
        if (!std::isspace(static_cast<unsigned char>(c)) && !std::ispunct(static_cast<unsigned char>(c)))
          plain += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      EXPECT_TRUE(seen.insert(plain).second) << "twice: " << prompt;
    }
  }
}

}  // namespace ee::data
