// One vocabulary with other normalizers, pre-tokenizers, decoders, classes and flags around it, against
// transformers.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ee/tokenizer/tokenizer.h"
#include "tokenizer/golden_helper.h"
#include "tokenizer/temporary_folder.h"

namespace ee::tokenizer {
namespace {

using nlohmann::json;

json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  return json::parse(file);
}

void write_files(const json& variant, const TemporaryFolder& folder) {
  if (variant.at("parts").is_null()) {
    std::filesystem::copy_file(golden_folder("sentencepiece") / "tokenizer.model",
                               folder.path() / "tokenizer.model",
                               std::filesystem::copy_options::overwrite_existing);
  } else {
    json description = read_json(golden_folder("sentencepiece_json") / "tokenizer.json");
    for (const auto& [name, part] : variant.at("parts").items()) {
      name == "model" ? description[name].update(part) : void(description[name] = part);
    }
    folder.write("tokenizer.json", description.dump());
  }
  if (!variant.at("config").is_null()) folder.write("tokenizer_config.json", variant.at("config").dump());
  if (!variant.at("model_type").is_null()) {
    folder.write("config.json", json{{"model_type", variant.at("model_type")}}.dump());
  }
}

}  // namespace

TEST(SentencePieceVariants, EqualTransformers) {
  const json variants = read_json(golden_folder("sentencepiece_variants.golden.json"));
  EXPECT_GE(variants.size(), 25u);
  for (const json& variant : variants) {
    SCOPED_TRACE(variant.at("name").get<std::string>());
    const TemporaryFolder folder;
    write_files(variant, folder);
    const auto tokenizer = Tokenizer::load(folder.path());
    EXPECT_EQ(tokenizer->adds_bos(), variant.at("adds_bos").get<bool>());
    EXPECT_EQ(tokenizer->adds_eos(), variant.at("adds_eos").get<bool>());
    for (const json& row : variant.at("cases")) {
      const std::string text = row[0];
      const std::vector<int64_t> ids = tokenizer->encode(text);
      EXPECT_EQ(ids, row[1].get<std::vector<int64_t>>()) << '"' << text << '"';
      EXPECT_EQ(tokenizer->encode(text, false), row[2].get<std::vector<int64_t>>()) << '"' << text << '"';
      EXPECT_EQ(tokenizer->decode(ids, true), row[3].get<std::string>()) << '"' << text << '"';
    }
  }
}

}  // namespace ee::tokenizer
