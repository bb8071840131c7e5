#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "ee/base/error.h"
#include "ee/eval/evaluate.h"
#include "ee/kernels/linear_cross_entropy.h"
#include "support/tiny_model.h"

namespace ee::eval {
namespace {

class LetterTokenizer : public tokenizer::Tokenizer {
 public:
  LetterTokenizer() {
    eos_ = 1;
    bos_ = 2;
    adds_bos_ = true;
  }
  std::vector<int64_t> encode(std::string_view text, bool) const override {
    std::vector<int64_t> tokens;
    for (const char c : text) {
      tokens.push_back(c - 'a' + 10);
    }
    return tokens;
  }
  std::string token_bytes(int64_t, bool) const override { return ""; }
  int64_t vocab_size() const override { return 36; }
  std::string fingerprint() const override { return "letters"; }
  std::optional<int64_t> token_id(std::string_view) const override { return std::nullopt; }
};

struct ReadSequences : ::testing::Test {
  ReadSequences() {
    std::filesystem::create_directories(folder);
    write("1.txt", "abc");
    write("2.jsonl", "{\"text\": \"de\"}\n{\"text\": \"f\"}\n");
  }
  ~ReadSequences() override { std::filesystem::remove_all(folder); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder / name) << text; }
  Sequences read(int64_t sequences, int64_t length) {
    return read_sequences({.path = folder, .sequences = sequences, .sequence_length = length},
                          test::tiny_config(), LetterTokenizer());
  }
  std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / fmt::format("read-sequences-{}", ::getpid());
};

TEST_F(ReadSequences, CutsDocumentsBetweenBosAndEosIntoWindowsThatOverlapByOne) {
  // Stream: 2 10 11 12 1 | 2 13 14 1 | 2 15 1
  EXPECT_THAT(read(100, 5), ::testing::ElementsAre(Sequence{{2, 10, 11, 12, 1}, {10, 11, 12, 1, 2}},
                                                   Sequence{{2, 13, 14, 1, 2}, {13, 14, 1, 2, 15}}));
  EXPECT_THAT(read(INT64_MAX, 11), ::testing::SizeIs(1));
}

TEST_F(ReadSequences, StopsAfterTheSequencesAskedFor) {
  write("3.jsonl", "this is not JSON: nobody reads so far");
  EXPECT_THAT(read(1, 4), ::testing::ElementsAre(Sequence{{2, 10, 11, 12}, {10, 11, 12, 1}}));
}

TEST_F(ReadSequences, PromptsAreReadButNoTargetsAndWindowsOfThemAreLeftOut) {
  std::filesystem::remove(folder / "1.txt");
  write("2.jsonl",
        "{\"tokens\": [5, 6, 7, 8], \"prompt_tokens\": 3}\n{\"tokens\": [9, 10, 11, 12, 13, 14], "
        "\"prompt_tokens\": 5}\n");
  constexpr int64_t kNone = kernels::kIgnoreToken;
  // Stream: (5 6 7) 8 1 | (9 10 11 12 13) 14 1; in brackets what is a prompt's.
  EXPECT_THAT(read(100, 3), ::testing::ElementsAre(Sequence{{5, 6, 7}, {kNone, kNone, 8}},
                                                   Sequence{{8, 1, 9}, {1, kNone, kNone}}));
  EXPECT_THAT(read(100, 11), ::testing::ElementsAre(
                                 Sequence{{5, 6, 7, 8, 1, 9, 10, 11, 12, 13, 14},
                                          {kNone, kNone, 8, 1, kNone, kNone, kNone, kNone, kNone, 14, 1}}));
  write("2.jsonl", "{\"tokens\": [5, 6, 7, 8], \"prompt_tokens\": 4}\n");
  EXPECT_THROW(read(1, 3), base::UserError);
}

TEST_F(ReadSequences, RefusesTooLittleTextAndSizesOutOfRange) {
  EXPECT_THROW(read(1, 12), base::UserError);  // 12 tokens predict 11
  EXPECT_THROW(read(0, 5), base::UserError);
  EXPECT_THROW(read(1, 0), base::UserError);
  EXPECT_THROW(read(1, 129), base::UserError);  // max_positions is 128
  std::filesystem::remove_all(folder);
  EXPECT_THROW(read(1, 5), base::UserError);
}

}  // namespace
}  // namespace ee::eval
