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

TEST(SentencePieceTokenizer, FlagsSayWhatStandsAroundATextOfAModelFile) {
  EXPECT_EQ(load(json::object())->bos(), 1);
  EXPECT_EQ(load(json::object())->eos(), 2);
  EXPECT_FALSE(load(json::object())->adds_bos());
  EXPECT_TRUE(load({{"add_bos_token", true}})->adds_bos());
  EXPECT_TRUE(load({{"add_eos_token", true}})->adds_eos());
  EXPECT_EQ(load({{"bos_token", "</s>"}})->bos(), 2);
  EXPECT_EQ(load({{"bos_token", "<none>"}})->bos(), std::nullopt);
}

TEST(SentencePieceTokenizer, TokensBeyondTheModelAreLoaded) {
  const json config = {{"tokenizer_class", "LlamaTokenizer"},
                       {"added_tokens_decoder", {{"600", {{"content", "<pad>"}, {"special", true}}}}}};
  EXPECT_EQ(load(config)->vocab_size(), 601);
  EXPECT_EQ(load(config)->encode("<pad>"), std::vector<int64_t>{600});
}

TEST(SentencePieceTokenizer, RefusesWhatItCannotReadByName) {
  const auto error = [](const std::string& model, const json& config) -> std::string {
    const TemporaryFolder folder;
    folder.write("tokenizer.model", model);
    folder.write("tokenizer_config.json", config.dump());
    try {
      Tokenizer::load(folder.path());
    } catch (const base::UserError& e) {
      return e.what();
    }
    return "no error";
  };
  const std::string piece =
                        "\x0a\x05\x0a\x03"
                        "abc",
                    bpe = "\x12\x02\x18\x02", unigram = "\x12\x02\x18\x01";
  const std::string mapped = "\x1a\x05\x12\x03xyz";  // a table of characters
  using ::testing::HasSubstr;
  EXPECT_EQ(error(piece + bpe, json::object()), "no error");
  EXPECT_THAT(error(piece + unigram, json::object()), HasSubstr("of type unigram"));
  EXPECT_THAT(error(piece + bpe + mapped, json::object()), HasSubstr("precompiled_charsmap"));
  EXPECT_EQ(error(piece + bpe + mapped, {{"tokenizer_class", "LlamaTokenizer"}}),
            "no error");  // heeds no table
  EXPECT_THAT(error((piece + bpe).substr(0, 6), json::object()), HasSubstr("not a SentencePiece model"));
  EXPECT_THAT(error(piece + bpe, {{"tokenizer_class", "GPT2Tokenizer"}}),
              HasSubstr("read as a GPT2Tokenizer"));
}

TEST(SentencePieceTokenizer, BrokenUtf8IsReadAsReplacementCharacters) {
  const auto tokenizer = load(json::object());
  EXPECT_EQ(tokenizer->encode("ab\xFFz"), tokenizer->encode("ab\uFFFDz"));
}

}  // namespace ee::tokenizer
