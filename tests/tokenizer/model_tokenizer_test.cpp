#include "ee/tokenizer/model_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "ee/base/error.h"
#include "tokenizer/golden_helper.h"
#include "tokenizer/temporary_folder.h"

namespace ee::tokenizer {
namespace {

// The small Llama-like model of 600 pieces, with a padding token that nobody trained: the state of
// Llama-2-13b-hf.
class PaddedFolder : public ::testing::Test {
 protected:
  PaddedFolder() {
    std::filesystem::copy_file(golden_folder("sentencepiece") / "tokenizer.model",
                               folder_.path() / "tokenizer.model");
    folder_.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true})");
    folder_.write("added_tokens.json", R"({"<pad>": 600})");
    folder_.write("special_tokens_map.json", R"({"pad_token": "<pad>"})");
  }

  std::string error_of(const std::function<void()>& action) {
    try {
      action();
    } catch (const base::UserError& error) {
      return error.what();
    }
    return "no error";
  }

  TemporaryFolder folder_;
};

}  // namespace

TEST_F(PaddedFolder, LoadsAndOnlyATextThatNeedsTheTokenIsRefused) {
  const auto all = Tokenizer::load(folder_.path());
  const auto tokenizer = load_model_tokenizer(folder_.path(), 600);
  EXPECT_EQ(all->vocab_size(), 601);
  EXPECT_EQ(tokenizer->vocab_size(), 600);
  EXPECT_EQ(tokenizer->encode("The fox <s>"), all->encode("The fox <s>"));
  EXPECT_EQ(tokenizer->decode(all->encode("The fox")), "The fox");
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->fingerprint(), all->fingerprint());
  EXPECT_EQ(tokenizer->token_id("<pad>"), std::nullopt);
  EXPECT_EQ(tokenizer->encode("a<pad>", false), all->encode("a<pad>", false));  // there it is text
  EXPECT_THAT(error_of([&] { tokenizer->encode("a<pad>"); }), ::testing::HasSubstr("'<pad>' with id 600"));
}

TEST_F(PaddedFolder, OfAModelWithEnoughRowsHasAllTokens) {
  EXPECT_EQ(load_model_tokenizer(folder_.path(), 601)->encode("<pad>"), std::vector<int64_t>{600});
}

TEST_F(PaddedFolder, EndOfTextMustBeAToken) {
  folder_.write("special_tokens_map.json", R"({"eos_token": "<pad>"})");
  EXPECT_THAT(error_of([&] { load_model_tokenizer(folder_.path(), 600); }),
              ::testing::HasSubstr("EOS token has the id 600"));
}

}  // namespace ee::tokenizer
