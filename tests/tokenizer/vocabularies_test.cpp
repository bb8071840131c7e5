// Real vocabularies: llama.cpp's files with texts and the ids that it and the models' own tokenizers give.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/format/gguf.h"
#include "ee/tokenizer/gguf_tokenizer.h"
#include "ee/tokenizer/tokenizer.h"
#include "tokenizer/golden_helper.h"
#include "tokenizer/temporary_folder.h"

namespace ee::tokenizer {
namespace {

std::filesystem::path vocabulary_file(const std::string& name) {
  return std::filesystem::path(EE_LLAMA_DIR) / "models" / ("ggml-vocab-" + name + ".gguf");
}

std::unique_ptr<Tokenizer> convert(const std::string& name) {
  const std::filesystem::path path = vocabulary_file(name);
  EXPECT_TRUE(std::filesystem::exists(path)) << "run scripts/setup.sh --test, which fetches " << path;
  const TemporaryFolder folder;
  write_hf_tokenizer(format::GgufFile(path), folder.path());
  return Tokenizer::load(folder.path());
}

std::vector<std::string> texts_of(const std::string& name) {
  const std::string file = base::read_text_file(vocabulary_file(name).string() + ".inp");
  constexpr std::string_view kBetween = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  for (std::size_t at = 0, end = 0; (end = file.find(kBetween, at)) != std::string::npos;) {
    texts.push_back(file.substr(at, end - at));
    at = end + kBetween.size();
  }
  return texts;
}

std::vector<std::vector<int64_t>> ids_of(const std::string& name) {
  std::istringstream file(base::read_text_file(vocabulary_file(name).string() + ".out"));
  std::vector<std::vector<int64_t>> all;
  for (std::string line; std::getline(file, line);) {
    std::istringstream numbers(line);
    all.emplace_back();
    for (int64_t id = 0; numbers >> id;) all.back().push_back(id);
  }
  return all;
}

}  // namespace

class RealVocabulary : public ::testing::TestWithParam<const char*> {};

TEST_P(RealVocabulary, GivesTheExpectedIds) {
  const std::string name = GetParam();
  const auto tokenizer = convert(name);
  const auto texts = texts_of(name);
  const auto ids = ids_of(name);
  ASSERT_GE(texts.size(), 45u);
  ASSERT_GE(ids.size(), texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(tokenizer->encode(texts[i], false), ids[i]) << '"' << texts[i] << '"';
    EXPECT_EQ(tokenizer->decode(ids[i], true), texts[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(All, RealVocabulary,
                         ::testing::Values("gpt-2", "llama-bpe", "qwen2", "refact", "starcoder", "llama-spm",
                                           "phi-3", "falcon", "mpt", "deepseek-llm", "deepseek-coder",
                                           "command-r", "qwen35", "gemma-4"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

class VocabularyWithoutIds : public ::testing::TestWithParam<const char*> {};

TEST_P(VocabularyWithoutIds, GivesTheIdsOfHuggingFacesLibrary) {
  std::ifstream file(golden_folder("vocabularies.golden.json"));
  const auto ids = nlohmann::json::parse(file).at(GetParam()).get<std::vector<std::vector<int64_t>>>();
  const auto texts = texts_of("gpt-2");
  ASSERT_EQ(ids.size(), texts.size());
  const auto tokenizer = convert(GetParam());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(tokenizer->encode(texts[i]), ids[i]) << '"' << texts[i] << '"';
    EXPECT_EQ(tokenizer->decode(ids[i], true), texts[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(All, VocabularyWithoutIds, ::testing::Values("gpt-neox", "aquila", "baichuan"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(RealVocabularies, OfEncodersAreRefusedByName) {
  using ::testing::HasSubstr;
  for (const auto& [name, kind] : {std::pair("bert-bge", "'bert'"), std::pair("nomic-bert-moe", "'t5'")}) {
    try {
      convert(name);
      ADD_FAILURE() << name;
    } catch (const base::UserError& error) {
      EXPECT_THAT(error.what(), HasSubstr(kind));
    }
  }
}

}  // namespace ee::tokenizer
