#include "ee/data/packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <numeric>
#include <set>

#include "data/byte_tokenizer.h"

namespace ee::data {
namespace fs = std::filesystem;
using base::UserError;

constexpr int64_t kSeparator = 999;

class Packing : public testing::Test {
 protected:
  void TearDown() override { fs::remove_all(folder_); }

  // Documents of the given lengths, bytes counting on from one to the next.
  std::shared_ptr<const Corpus> make_corpus(const std::vector<int>& lengths) {
    fs::create_directories(folder_);
    std::ofstream file(folder_ / "a.jsonl");
    int next = 0;
    for (const int length : lengths) {
      std::string text;
      for (int i = 0; i < length; ++i) text += static_cast<char>('0' + next++ % 10);
      file << "{\"text\": \"" << text << "\"}\n";
    }
    file.close();
    return std::make_shared<Corpus>(open_corpus({folder_ / "a.jsonl"}, ByteTokenizer(),
                                                {.cache = folder_, .threads = 1, .progress = {}}));
  }

  // The stream as the definition says: tokens of each segment, then the separator.
  static std::vector<int64_t> naive_stream(const Corpus& corpus, const std::vector<Segment>& segments) {
    std::vector<int64_t> stream;
    for (const auto& segment : segments) {
      for (int64_t i = segment.begin; i < segment.end; ++i)
        stream.push_back(corpus.document(segment.document)[static_cast<size_t>(i)]);
      stream.push_back(kSeparator);
    }
    return stream;
  }

  fs::path folder_ = fs::path(testing::TempDir()) / fmt::format("ee-packing-{}", ::getpid());
};

TEST_F(Packing, EveryTokenIsATargetExactlyOnce) {
  const auto corpus = make_corpus({1, 7, 30, 2, 4, 4, 11});
  const auto segments = whole_documents(*corpus);
  const auto stream = naive_stream(*corpus, segments);
  for (const int64_t length : {1, 2, 3, 4, 5, 13, 64}) {
    const PackedSequences packed(corpus, segments, length, kSeparator);
    EXPECT_EQ(packed.tokens(), std::ssize(stream));
    EXPECT_EQ(packed.size(), (std::ssize(stream) - 1) / length);
    std::vector<int64_t> inputs(static_cast<size_t>(length)), targets = inputs, seen = {stream[0]};
    for (int64_t i = 0; i < packed.size(); ++i) {
      packed.copy(i, inputs, targets);
      EXPECT_EQ(inputs.front(), seen.back()) << "a window begins with the last target of the one before";
      EXPECT_TRUE(std::equal(inputs.begin() + 1, inputs.end(), targets.begin()));
      seen.insert(seen.end(), targets.begin(), targets.end());
    }
    EXPECT_TRUE(std::equal(seen.begin(), seen.end(), stream.begin())) << length;
    EXPECT_LT(std::ssize(stream) - std::ssize(seen), length) << "only the ragged end is left out";
  }
}

TEST_F(Packing, PromptsAreInputsButNoTargets) {
  fs::create_directories(folder_);
  std::ofstream(folder_ / "a.jsonl") << "{\"tokens\": [1, 2, 3, 4], \"prompt_tokens\": 2}\n"
                                        "{\"tokens\": [5, 6], \"prompt_tokens\": 1}\n{\"text\": \"0\"}\n";
  const auto corpus = std::make_shared<Corpus>(
      open_corpus({folder_ / "a.jsonl"}, ByteTokenizer(), {.cache = folder_, .threads = 1, .progress = {}}));
  const PackedSequences packed(corpus, whole_documents(*corpus), 9, kSeparator);
  std::vector<int64_t> inputs(9), targets(9);
  packed.copy(0, inputs, targets);
  EXPECT_THAT(inputs, testing::ElementsAre(1, 2, 3, 4, kSeparator, 5, 6, kSeparator, '0'));
  EXPECT_THAT(targets,
              testing::ElementsAre(kNoTarget, 3, 4, kSeparator, kNoTarget, 6, kSeparator, '0', kSeparator));
}

TEST_F(Packing, LearnedTokensAreCountedWithoutBatches) {
  fs::create_directories(folder_);
  std::ofstream(folder_ / "a.jsonl") << "{\"tokens\": [1, 2, 3, 4, 5, 6, 7, 8, 9], \"prompt_tokens\": 9}\n"
                                        "{\"tokens\": [5, 6, 7, 8, 9, 1, 2], \"prompt_tokens\": 2}\n";
  const auto corpus = std::make_shared<Corpus>(
      open_corpus({folder_ / "a.jsonl"}, ByteTokenizer(), {.cache = folder_, .threads = 1, .progress = {}}));
  const BatchSource source(PackedSequences(corpus, whole_documents(*corpus), 4, kSeparator), false, 5,
                           "text");
  // Targets, those of prompts in brackets: (2 3 4 5) | (6 7 8 9) | end (5 6) 7 | 8 9 1 2
  std::vector<int64_t> learned;
  for (int64_t i = 0; i < source.sequences().size(); ++i) learned.push_back(source.learned_tokens(i, 1));
  EXPECT_THAT(learned, testing::ElementsAre(0, 0, 2, 4));
  EXPECT_EQ(source.learned_tokens(1, 3), 6);
  EXPECT_EQ(source.learned_tokens(0, 8), 12) << "two epochs";
  EXPECT_EQ(source.at(1, 3).targets.ne(kNoTarget).sum().item<int64_t>(), 6);
  EXPECT_EQ(source.first_learned(0, 1000), 2);
  EXPECT_EQ(source.first_learned(3, 5), 3);
  EXPECT_EQ(source.first_learned(4, 3), 6) << "of the second epoch";
  EXPECT_EQ(source.first_learned(0, 2), std::nullopt);
}

TEST_F(Packing, SplitHoldsOutTheFractionAndLosesNothing) {
  const auto corpus = make_corpus({50, 10, 20, 30, 5, 85});
  for (const double fraction : {0.0, 0.1, 0.25, 0.9}) {
    const auto split = split_documents(*corpus, fraction, 7);
    std::vector<std::set<int64_t>> seen(6);
    int64_t held_out = 0;
    for (const auto* part : {&split.train, &split.validation})
      for (const auto& segment : *part)
        for (int64_t i = segment.begin; i < segment.end; ++i)
          EXPECT_TRUE(seen[static_cast<size_t>(segment.document)].insert(i).second) << "in both parts";
    for (const auto& segment : split.validation) held_out += segment.end - segment.begin;
    for (int64_t i = 0; i < 6; ++i)
      EXPECT_EQ(seen[static_cast<size_t>(i)].size(), corpus->document(i).size());
    EXPECT_EQ(held_out, static_cast<int64_t>(200 * fraction));
  }
}

TEST_F(Packing, SplitDependsOnTheSeedAlone) {
  const auto corpus = make_corpus(std::vector<int>(40, 10));
  const auto split = split_documents(*corpus, 0.2, 1);
  EXPECT_EQ(split.validation, split_documents(*corpus, 0.2, 1).validation);
  EXPECT_NE(split.validation, split_documents(*corpus, 0.2, 2).validation);
  EXPECT_EQ(split.validation.size(), 8u);
}

TEST_F(Packing, OneDocumentIsSplitAtItsEnd) {
  const auto corpus = make_corpus({100});
  const auto split = split_documents(*corpus, 0.1, 1);
  EXPECT_EQ(split.train, (std::vector<Segment>{{0, 0, 90}}));
  EXPECT_EQ(split.validation, (std::vector<Segment>{{0, 90, 100}}));
}

TEST(Permutation, IsABijectionForEverySize) {
  for (const int64_t size : {1, 2, 3, 4, 5, 16, 17, 100, 1023, 1025}) {
    for (const uint64_t key : {0, 1, 99}) {
      const Permutation permutation(size, key);
      std::set<int64_t> images;
      for (int64_t i = 0; i < size; ++i) {
        EXPECT_GE(permutation[i], 0);
        EXPECT_LT(permutation[i], size);
        images.insert(permutation[i]);
      }
      EXPECT_EQ(std::ssize(images), size);
    }
  }
}

TEST(Permutation, SpreadsAndDependsOnTheKey) {
  const Permutation a(1000, 1), b(1000, 2);
  int fixed = 0, same = 0, ascending = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    fixed += a[i] == i;
    same += a[i] == b[i];
    ascending += i > 0 && a[i] > a[i - 1];
  }
  EXPECT_LT(fixed, 10);  // 1 expected of a random one
  EXPECT_LT(same, 10);
  EXPECT_NEAR(ascending, 500, 60);
}

TEST_F(Packing, EachEpochIsAnotherOrderOfAllSequences) {
  const auto corpus = make_corpus({200});
  const BatchSource source(PackedSequences(corpus, whole_documents(*corpus), 4, kSeparator), true, 5, "text");
  ASSERT_EQ(source.sequences().size(), 50);
  std::vector<std::vector<int64_t>> epochs(2);
  for (int64_t sample = 0; sample < 100; ++sample)
    epochs[static_cast<size_t>(sample / 50)].push_back(source.sequence_index(sample));
  EXPECT_NE(epochs[0], epochs[1]);
  for (auto& epoch : epochs) {
    std::sort(epoch.begin(), epoch.end());
    for (int64_t i = 0; i < 50; ++i) EXPECT_EQ(epoch[static_cast<size_t>(i)], i);
  }
}

TEST_F(Packing, BatchesDependOnTheCursorAlone) {
  const auto corpus = make_corpus({37, 60, 3});
  const BatchSource source(PackedSequences(corpus, whole_documents(*corpus), 4, kSeparator), true, 5, "text");
  const auto four = source.at(48, 4);  // over the border of two epochs
  EXPECT_EQ(four.inputs.sizes(), (std::vector<int64_t>{4, 4}));
  EXPECT_TRUE(at::equal(four.inputs, at::cat({source.at(48, 1).inputs, source.at(49, 3).inputs})));
  EXPECT_TRUE(at::equal(four.targets, at::cat({source.at(48, 1).targets, source.at(49, 3).targets})));
  EXPECT_TRUE(at::equal(four.inputs.narrow(1, 1, 3), four.targets.narrow(1, 0, 3)));
}

TEST_F(Packing, UnshuffledOrderIsTheCorpus) {
  const auto corpus = make_corpus({40});
  const BatchSource source(PackedSequences(corpus, whole_documents(*corpus), 4, kSeparator), false, 5,
                           "text");
  for (int64_t i = 0; i < 25; ++i) EXPECT_EQ(source.sequence_index(i), i % 10);
}

TEST_F(Packing, TooLittleTextIsAnError) {
  const auto corpus = make_corpus({5});
  const PackedSequences packed(corpus, whole_documents(*corpus), 512, kSeparator);
  EXPECT_THAT([&] { BatchSource(packed, true, 1, "training text"); },
              testing::ThrowsMessage<UserError>(
                  testing::HasSubstr("training text: 6 tokens in 1 documents do not make")));
}

}  // namespace ee::data
