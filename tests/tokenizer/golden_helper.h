// Token ids that Hugging Face's libraries gave, written by make_golden.py.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ee/tokenizer/tokenizer.h"

namespace ee::tokenizer {

struct GoldenCase {
  std::string text;
  std::vector<int64_t> ids;        // special tokens parsed
  std::vector<int64_t> plain_ids;  // special tokens read as text
  std::string decoded;             // of `ids`, special tokens kept
};

struct Golden {
  std::optional<int64_t> bos, eos;
  bool adds_bos = false;
  int64_t vocab_size = 0;
  std::vector<GoldenCase> cases;
};

std::filesystem::path golden_folder(const std::string& name);
Golden read_golden(const std::string& name);

// Expects everything in the golden file of this tokenizer.
void expect_golden(const Tokenizer& tokenizer, const Golden& golden);

}  // namespace ee::tokenizer
