#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/tokenizer/tokenizer.h"
#include "tokenizer/golden_helper.h"
#include "tokenizer/temporary_folder.h"

namespace ee::tokenizer {
namespace {

using nlohmann::json;

// The small Llama-like model with another configuration beside it.
std::unique_ptr<Tokenizer> load(const json& config, const json& description = nullptr) {
  const TemporaryFolder folder;
  std::filesystem::copy_file(golden_folder("sentencepiece") / "tokenizer.model",
                             folder.path() / "tokenizer.model");
  folder.write("tokenizer_config.json", config.dump());
  if (!description.is_null()) folder.write("tokenizer.json", description.dump());
  return Tokenizer::load(folder.path());
}

}  // namespace

TEST(SentencePieceTokenizer, BytesOfTokensJoinToTheText) {
  const auto tokenizer = load({{"tokenizer_class", "LlamaTokenizer"}});
  const std::string text = "The caf\u00e9 \U0001F600\nhas \u4F60\u597D  spaces";
  const auto ids = tokenizer->encode(text);
  std::string bytes;
  for (const int64_t id : ids) bytes += tokenizer->token_bytes(id);
  EXPECT_EQ(bytes, " " + text);  // the space in front of the first word
  EXPECT_EQ(tokenizer->decode(ids), text);
  EXPECT_GT(ids.size(), 4u);
}

TEST(SentencePieceTokenizer, SpecialTokensAreSilentUnlessAskedFor) {
  const auto tokenizer = load(json::object());
  EXPECT_EQ(tokenizer->encode("<s>"), std::vector<int64_t>{1});
  EXPECT_EQ(tokenizer->token_bytes(1), "");
  EXPECT_EQ(tokenizer->token_bytes(1, true), "<s>");
  EXPECT_EQ(tokenizer->token_bytes(-1), "");
  EXPECT_EQ(tokenizer->token_bytes(1'000'000), "");
  EXPECT_THAT(tokenizer->encode("<s>", false), ::testing::Not(::testing::Contains(1)));
}

TEST(SentencePieceTokenizer, BosComesFromTheModelAndTheConfig) {
  EXPECT_EQ(load(json::object())->bos(), 1);
  EXPECT_EQ(load(json::object())->eos(), 2);
  EXPECT_TRUE(load(json::object())->adds_bos());
  EXPECT_FALSE(load({{"add_bos_token", false}})->adds_bos());
  EXPECT_EQ(load({{"bos_token", "</s>"}})->bos(), 2);
  EXPECT_THROW(load({{"bos_token", "<none>"}}), base::UserError);
  EXPECT_THROW(load({{"add_eos_token", true}}), base::UserError);
}

TEST(SentencePieceTokenizer, ConvertedJsonSaysWhereSpacesGo) {
  json description = {{"model", {{"type", "BPE"}, {"byte_fallback", true}}},
                      {"normalizer", {{"type", "Prepend"}, {"prepend", "\u2581"}}}};
  const auto every = load(json::object(), description);
  description["normalizer"] = nullptr;
  description["pre_tokenizer"] = {{"type", "Metaspace"}, {"prepend_scheme", "first"}};
  const auto first = load(json::object(), description);
  description["pre_tokenizer"]["prepend_scheme"] = "never";
  const auto never = load(json::object(), description);
  const auto spelled = [](const Tokenizer& tokenizer) {
    std::string bytes;
    for (const int64_t id : tokenizer.encode("the<s>fox")) bytes += tokenizer.token_bytes(id, true);
    return bytes;
  };
  EXPECT_EQ(spelled(*every), " the<s> fox");
  EXPECT_EQ(spelled(*first), " the<s>fox");
  EXPECT_EQ(spelled(*never), "the<s>fox");
  EXPECT_NE(every->fingerprint(), first->fingerprint());
  EXPECT_NE(first->fingerprint(), never->fingerprint());
}

TEST(SentencePieceTokenizer, BrokenUtf8IsReadAsReplacementCharacters) {
  const auto tokenizer = load(json::object());
  EXPECT_EQ(tokenizer->encode("ab\xFFz"), tokenizer->encode("ab\uFFFDz"));
}

}  // namespace ee::tokenizer
