#include "ee/tokenizer/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "ee/base/error.h"
#include "ee/tokenizer/tokenizer.h"
#include "tokenizer/temporary_folder.h"

namespace ee::tokenizer {
namespace {

// Writes GGUF files that hold nothing but metadata.
class MetadataFile {
 public:
  MetadataFile& text(const std::string& key, const std::string& value) { return add(key, 8, string(value)); }
  MetadataFile& boolean(const std::string& key, bool value) { return add(key, 7, std::string(1, value)); }
  MetadataFile& id(const std::string& key, uint32_t value) { return add(key, 4, number(value)); }
  MetadataFile& texts(const std::string& key, const std::vector<std::string>& values) {
    std::string body = number(uint32_t{8}) + number(uint64_t{values.size()});
    for (const std::string& value : values) body += string(value);
    return add(key, 9, body);
  }
  MetadataFile& integers(const std::string& key, const std::vector<int32_t>& values) {
    std::string body = number(uint32_t{5}) + number(uint64_t{values.size()});
    for (const int32_t value : values) body += number(value);
    return add(key, 9, body);
  }
  MetadataFile& reals(const std::string& key, const std::vector<float>& values) {
    std::string body = number(uint32_t{6}) + number(uint64_t{values.size()});
    for (const float value : values) body += number(value);
    return add(key, 9, body);
  }

  std::string bytes() const {
    return "GGUF" + number(uint32_t{3}) + number(uint64_t{0}) + number(count_) + entries_;
  }

 private:
  template <typename T>
  static std::string number(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  static std::string string(const std::string& value) { return number(uint64_t{value.size()}) + value; }
  MetadataFile& add(const std::string& key, uint32_t type, const std::string& body) {
    entries_ += string(key) + number(type) + body;
    ++count_;
    return *this;
  }

  std::string entries_;
  uint64_t count_ = 0;
};

// Seven tokens of a byte-level BPE: two digits merge, if the pre-tokenizer leaves them together.
MetadataFile small_file(const std::string& pre) {
  MetadataFile file;
  file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", pre);
  file.texts("tokenizer.ggml.tokens", {"<s>", "1", "2", "12", "\u0120", "\u012012", "<think>"});
  file.integers("tokenizer.ggml.token_type", {3, 1, 1, 1, 1, 1, 4});
  file.texts("tokenizer.ggml.merges", {"1 2"});
  return file.id("tokenizer.ggml.bos_token_id", 0);
}

std::unique_ptr<Tokenizer> load(const MetadataFile& metadata) {
  const TemporaryFolder folder;
  folder.write("model.gguf", metadata.bytes());
  write_hf_tokenizer(format::GgufFile(folder.path() / "model.gguf"), folder.path());
  return Tokenizer::load(folder.path());
}

std::string error_of(const MetadataFile& metadata) {
  try {
    load(metadata);
  } catch (const base::UserError& error) {
    return error.what();
  }
  return "no error";
}

using Ids = std::vector<int64_t>;

}  // namespace

TEST(GgufTokenizer, PreTokenizerDecidesWhatMayMerge) {
  EXPECT_EQ(load(small_file("smollm"))->encode("12"), (Ids{1, 2}));  // every digit on its own
  EXPECT_EQ(load(small_file("qwen2"))->encode("12"), (Ids{1, 2}));
  EXPECT_EQ(load(small_file("gpt-2"))->encode("12"), Ids{3});
  EXPECT_EQ(load(small_file("gpt-2"))->encode(" 12"), (Ids{4, 3}));  // no merge leads to " 12"
  EXPECT_EQ(load(small_file("default"))->encode(" 12"), (Ids{4, 3}));
  EXPECT_EQ(load(small_file("llama-bpe"))->encode("12121"), (Ids{3, 1, 3 - 1, 1}));  // groups of three digits
}

TEST(GgufTokenizer, AWordOfTheVocabularyNeedsNoMergesForLlama3) {
  MetadataFile file;
  file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "llama-bpe");
  file.texts("tokenizer.ggml.tokens", {"<s>", "a", "b", "ab"})
      .integers("tokenizer.ggml.token_type", {3, 1, 1, 1});
  file.texts("tokenizer.ggml.merges", {}).id("tokenizer.ggml.bos_token_id", 0);
  EXPECT_EQ(load(file)->encode("ab"), Ids{3});
}

TEST(GgufTokenizer, ControlTokensAreSpecialAndUserDefinedOnesAreNot) {
  const auto tokenizer = load(small_file("gpt-2"));
  EXPECT_EQ(tokenizer->encode("<s>1<think>"), (Ids{0, 1, 6}));
  EXPECT_EQ(tokenizer->decode({0, 1, 6}), "1<think>");
  EXPECT_EQ(tokenizer->encode("<think>", false), Ids{6});
}

TEST(GgufTokenizer, AddsBosAsTheFileSaysOrLlamaCppAssumes) {
  EXPECT_FALSE(load(small_file("gpt-2"))->adds_bos());
  EXPECT_TRUE(load(small_file("gpt-2").boolean("tokenizer.ggml.add_bos_token", true))->adds_bos());
  EXPECT_TRUE(load(small_file("llama-bpe"))->adds_bos());
  EXPECT_FALSE(load(small_file("llama-bpe").boolean("tokenizer.ggml.add_bos_token", false))->adds_bos());
  EXPECT_EQ(load(small_file("llama-bpe"))->bos(), 0);
}

TEST(GgufTokenizer, CarriesTheChatTemplate) {
  EXPECT_EQ(load(small_file("gpt-2").text("tokenizer.chat_template", "{{ x }}"))->chat_template().source,
            "{{ x }}");
  EXPECT_EQ(load(small_file("gpt-2"))->chat_template().source, "");
  MetadataFile named = small_file("gpt-2");
  named.texts("tokenizer.chat_templates", {"rag"}).text("tokenizer.chat_template.rag", "r");
  EXPECT_THAT(load(named)->chat_template().why_none,
              ::testing::HasSubstr("the chat templates rag, but none"));
  const ChatTemplate chat = load(named.text("tokenizer.chat_template", "d"))->chat_template();
  EXPECT_EQ(chat.source, "d");
  EXPECT_EQ(chat.variables, (std::map<std::string, std::string>{{"bos_token", "<s>"}}));
  EXPECT_THAT(error_of(small_file("gpt-2").texts("tokenizer.chat_templates", {"../x"})),
              ::testing::HasSubstr("which is no name for a file"));
}

TEST(GgufTokenizer, NamesWhatItCannotUse) {
  using ::testing::HasSubstr;
  EXPECT_THAT(error_of(small_file("viking")), HasSubstr("tokenizer.ggml.pre is 'viking'"));
  EXPECT_THAT(error_of(MetadataFile().text("tokenizer.ggml.model", "bert")), HasSubstr("'bert'"));
  EXPECT_THAT(error_of(MetadataFile()), HasSubstr("tokenizer.ggml.model"));
  EXPECT_THAT(error_of(small_file("gpt-2").id("tokenizer.ggml.eos_token_id", 7)),
              HasSubstr("eos_token_id is 7"));
  MetadataFile file;
  file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
  file.texts("tokenizer.ggml.tokens", {"a", "a"}).texts("tokenizer.ggml.merges", {});
  MetadataFile short_types = file;
  EXPECT_THAT(error_of(short_types.integers("tokenizer.ggml.token_type", {1})),
              HasSubstr("token_type has 1 entries"));
  MetadataFile binary;
  binary.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
  binary.texts("tokenizer.ggml.tokens", {"\xFF"}).texts("tokenizer.ggml.merges", {});
  EXPECT_THAT(error_of(binary.integers("tokenizer.ggml.token_type", {1})), HasSubstr("UTF-8"));
}

TEST(GgufTokenizer, OfTwoIdsWithOneTextTheLastCounts) {
  MetadataFile file;
  file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
  file.texts("tokenizer.ggml.tokens", {"a", "a", "<x>", "<x>"}).texts("tokenizer.ggml.merges", {});
  const auto tokenizer = load(file.integers("tokenizer.ggml.token_type", {1, 1, 3, 3}));
  EXPECT_EQ(tokenizer->encode("a<x>"), (Ids{1, 3}));
  EXPECT_EQ(tokenizer->token_bytes(0), "");
}

TEST(GgufTokenizer, AMissingPreTokenizerIsProvenByTheMergesOrRefused) {
  const auto file = [](const std::string& merge) {
    MetadataFile metadata;
    metadata.text("tokenizer.ggml.model", "gpt2");
    metadata.texts("tokenizer.ggml.tokens", {"1", "2", "12", "\u0120", "\u01201"});
    metadata.integers("tokenizer.ggml.token_type", {1, 1, 1, 1, 1});
    return metadata.texts("tokenizer.ggml.merges", {merge});
  };
  EXPECT_EQ(load(file("\u0120 1"))->encode(" 12"),
            (Ids{4, 1}));  // only GPT-2 has a space and a digit in one word
  EXPECT_THAT(error_of(file("1 2")), ::testing::HasSubstr("tokenizer.ggml.pre is missing"));
}

TEST(GgufTokenizer, AddsEosAsTheFileSays) {
  const MetadataFile file = small_file("gpt-2").id("tokenizer.ggml.eos_token_id", 0);
  EXPECT_FALSE(load(file)->adds_eos());
  EXPECT_TRUE(load(MetadataFile(file).boolean("tokenizer.ggml.add_eos_token", true))->adds_eos());
  EXPECT_THAT(error_of(small_file("gpt-2").boolean("tokenizer.ggml.add_eos_token", true)),
              ::testing::HasSubstr("no tokenizer.ggml.eos_token_id"));
}

// A SentencePiece vocabulary of eight tokens, without keys for its roles.
MetadataFile small_sentencepiece() {
  MetadataFile file;
  file.text("tokenizer.ggml.model", "llama");
  file.texts("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a", "<pad1>", "<pad2>"});
  return file.integers("tokenizer.ggml.token_type", {2, 3, 3, 1, 1, 1, 2, 2});
}

TEST(GgufTokenizer, SentencePieceNeedsItsScores) {
  EXPECT_THAT(error_of(small_sentencepiece()), ::testing::HasSubstr("tokenizer.ggml.scores"));
}

TEST(GgufTokenizer, SentencePieceHasLlamaCppsRolesAndManyUnknownTokens) {
  const auto tokenizer = load(small_sentencepiece().reals("tokenizer.ggml.scores", std::vector<float>(8, 0)));
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->encode("a"), Ids{5});
  EXPECT_EQ(tokenizer->encode(" a"), (Ids{3, 5}));
  EXPECT_EQ(tokenizer->encode("a</s>a<pad2>"), (Ids{5, 2, 5, 7}));
  EXPECT_EQ(tokenizer->encode("zz"), (Ids{3, 0}));
}

TEST(GgufTokenizer, ModelsThatTransformersReadsByItsOwnRulesMustFitThem) {
  const TemporaryFolder folder;
  const auto check = [&](const std::string& pre, const std::string& model_type) -> std::string {
    folder.write("model.gguf", small_file(pre).bytes());
    try {
      check_gguf_model_type(format::GgufFile(folder.path() / "model.gguf"), model_type);
    } catch (const base::UserError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(check("qwen2", "qwen2"), "no error");
  EXPECT_EQ(check("qwen35", "llama"), "no error");
  EXPECT_THAT(check("qwen35", "qwen2"), ::testing::HasSubstr("tokenizer.ggml.pre 'qwen35'"));
}

}  // namespace ee::tokenizer
