#include "tokenizer/golden_helper.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace ee::tokenizer {

std::filesystem::path golden_folder(const std::string& name) {
  return std::filesystem::path(EE_SOURCE_DIR) / "tests/tokenizer/golden" / name;
}

Golden read_golden(const std::string& name) {
  std::ifstream file(golden_folder(name + ".golden.json"));
  const auto json = nlohmann::json::parse(file);
  const auto id = [&](const char* key) {
    return json.at(key).is_null() ? std::nullopt : std::optional(json.at(key).get<int64_t>());
  };
  Golden golden{.bos = id("bos"),
                .eos = id("eos"),
                .adds_bos = json.at("adds_bos"),
                .vocab_size = json.at("vocab_size"),
                .cases = {}};
  for (const auto& row : json.at("cases")) {
    golden.cases.push_back({.text = row[0],
                            .ids = row[1],
                            .plain_ids = row[2].is_null() ? row[1] : row[2],
                            .decoded = row[3].is_null() ? row[0] : row[3]});
  }
  return golden;
}

void expect_golden(const Tokenizer& tokenizer, const Golden& golden) {
  EXPECT_EQ(tokenizer.bos(), golden.bos);
  EXPECT_EQ(tokenizer.eos(), golden.eos);
  EXPECT_EQ(tokenizer.adds_bos(), golden.adds_bos);
  EXPECT_GE(golden.cases.size(), 40u);
  for (const GoldenCase& c : golden.cases) {
    const std::vector<int64_t> ids = tokenizer.encode(c.text);
    EXPECT_EQ(ids, c.ids) << c.text;
    EXPECT_EQ(tokenizer.encode(c.text, false), c.plain_ids) << "special tokens as text: " << c.text;
    EXPECT_EQ(tokenizer.decode(ids, true), c.decoded);
    for (const int64_t id : ids) EXPECT_LT(id, tokenizer.vocab_size());
  }
}

}  // namespace ee::tokenizer
