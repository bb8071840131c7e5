// A corpus for the tiny model: bytes below its vocabulary of 97.
#pragma once

#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include <unistd.h>

#include "data/byte_tokenizer.h"
#include "ee/data/packing.h"

namespace ee::train {

inline constexpr int64_t kSeparator = 10;

// Words that repeat, so that there is something to learn.
inline std::string sample_text(int words, uint64_t seed) {
  static constexpr const char* kWords[] = {"EARLY", "EXIT", "LAYER", "TOKEN", "MODEL", "TUNE", "LOSS"};
  std::mt19937_64 random(seed);
  std::string text;
  for (int i = 0; i < words; ++i) text += std::string(kWords[random() % 7]) + " ";
  return text;
}

inline data::BatchSource sample_source(int64_t sequence_length, int words = 400, uint64_t seed = 1) {
  const auto folder =
      std::filesystem::temp_directory_path() / fmt::format("ee-train-{}-{}-{}", ::getpid(), words, seed);
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "text.txt") << sample_text(words, seed);
  auto corpus = std::make_shared<data::Corpus>(data::open_corpus(
      {folder / "text.txt"}, data::ByteTokenizer(), {.cache = folder, .threads = 1, .progress = {}}));
  std::filesystem::remove_all(folder);  // the map stays
  auto segments = data::whole_documents(*corpus);
  return {{std::move(corpus), std::move(segments), sequence_length, kSeparator}, true, seed, "sample text"};
}

struct TokenDocument {
  std::vector<int64_t> tokens;
  int64_t prompt_tokens = 0;
};

// `count` tokens of the tiny model, other ones for other seeds.
inline std::vector<int64_t> random_tokens(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int64_t>(random() % 97));
  return tokens;
}

// In order.
inline data::BatchSource prompt_source(int64_t sequence_length, const std::vector<TokenDocument>& documents) {
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("ee-train-{}-prompts", ::getpid());
  std::filesystem::create_directories(folder);
  std::ofstream lines(folder / "text.jsonl");
  for (const auto& document : documents)
    lines << fmt::format("{{\"tokens\": [{}], \"prompt_tokens\": {}}}\n", fmt::join(document.tokens, ", "),
                         document.prompt_tokens);
  lines.close();
  auto corpus = std::make_shared<data::Corpus>(data::open_corpus(
      {folder / "text.jsonl"}, data::ByteTokenizer(), {.cache = folder, .threads = 1, .progress = {}}));
  std::filesystem::remove_all(folder);
  auto segments = data::whole_documents(*corpus);
  return {{std::move(corpus), std::move(segments), sequence_length, kSeparator}, false, 1, "prompts"};
}

}  // namespace ee::train
