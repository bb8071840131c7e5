#include "ee/parallel/tensor_slice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "ee/base/error.h"

namespace ee::parallel {

namespace {

config::ModelConfig model(int64_t heads, int64_t kv_heads, int64_t vocabulary = 257) {
  config::ModelConfig config;
  config.vocab_size = vocabulary;
  config.hidden_size = 20;
  config.intermediate_size = 23;
  config.heads = heads, config.kv_heads = kv_heads;
  config.head_dim = 4;
  return config;
}

struct Tensor {
  const char* name;
  Split split;
  std::vector<int64_t> sizes;
};

std::vector<Tensor> tensors_of(const config::ModelConfig& c) {
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim, hidden = c.hidden_size,
                inner = c.intermediate_size;
  return {{"norm", Split::none, {hidden}},         {"embedding", Split::vocabulary, {c.vocab_size, hidden}},
          {"q", Split::head_rows, {q, hidden}},    {"q bias", Split::head_rows, {q}},
          {"k", Split::kv_heads, {kv, hidden}},    {"v bias", Split::kv_heads, {kv}},
          {"o", Split::head_columns, {hidden, q}}, {"gate", Split::rows, {inner, hidden}},
          {"gate bias", Split::rows, {inner}},     {"down", Split::columns, {hidden, inner}}};
}

// How many ranks own each index of the divided axis.
std::vector<int64_t> owners(const config::ModelConfig& config, const Tensor& tensor, int64_t ranks) {
  const int64_t axis = slice_of(config, tensor.split, tensor.sizes, 0, ranks).axis;
  std::vector<int64_t> owners(static_cast<size_t>(tensor.sizes.at(static_cast<size_t>(axis))), 0);
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const Slice slice = slice_of(config, tensor.split, tensor.sizes, rank, ranks);
    EXPECT_EQ(slice.axis, axis);
    for (int64_t i = 0; i < slice.length; ++i) ++owners.at(static_cast<size_t>(slice.begin + i));
  }
  return owners;
}

bool fits(const config::ModelConfig& config, int64_t ranks, int64_t sequence_length = 0) {
  try {
    check_tensor_split(config, ranks, sequence_length);
    return true;
  } catch (const base::UserError&) {
    return false;
  }
}

std::vector<int64_t> lengths(const config::ModelConfig& config, Split split,
                             const std::vector<int64_t>& sizes, int64_t ranks) {
  std::vector<int64_t> result;
  for (int64_t rank = 0; rank < ranks; ++rank)
    result.push_back(slice_of(config, split, sizes, rank, ranks).length);
  return result;
}

}  // namespace

// For every grouping of heads and every number of ranks that fits it.
TEST(TensorSlice, SlicesCoverEveryTensorAsOftenAsThereAreCopies) {
  int tested = 0;
  for (int64_t kv_heads = 1; kv_heads <= 4; ++kv_heads)
    for (int64_t group = 1; group <= 4; ++group)
      for (int64_t ranks = 1; ranks <= 8; ++ranks) {
        const auto config = model(kv_heads * group, kv_heads);
        if (!fits(config, ranks)) continue;
        ++tested;
        for (const Tensor& tensor : tensors_of(config))
          EXPECT_THAT(owners(config, tensor, ranks), testing::Each(copies_of(config, tensor.split, ranks)))
              << tensor.name << " of " << config.heads << "/" << kv_heads << " heads on " << ranks;
      }
  EXPECT_GT(tested, 40);
}

// Attention is computed without another rank: whoever has a query head has its key/value head, and no other.
TEST(TensorSlice, QueryHeadsAreWithTheirKeyHeads) {
  for (int64_t kv_heads = 1; kv_heads <= 4; ++kv_heads)
    for (int64_t group = 1; group <= 4; ++group)
      for (int64_t ranks = 1; ranks <= 8; ++ranks) {
        const auto config = model(kv_heads * group, kv_heads);
        if (!fits(config, ranks)) continue;
        for (int64_t rank = 0; rank < ranks; ++rank) {
          const Slice q = slice_of(config, Split::head_rows, {config.heads * 4, 20}, rank, ranks),
                      kv = slice_of(config, Split::kv_heads, {kv_heads * 4, 20}, rank, ranks);
          ASSERT_GT(q.length, 0);
          const int64_t heads = q.length / 4, local = local_kv_heads(config, rank, ranks);
          ASSERT_EQ(kv.length, 4 * local);
          ASSERT_EQ(heads % local, 0);
          for (int64_t i = 0; i < heads; ++i)  // the i-th local query head uses local key head i / group
            EXPECT_EQ((q.begin / 4 + i) / group, kv.begin / 4 + i / (heads / local))
                << config.heads << "/" << kv_heads << " heads, rank " << rank << " of " << ranks;
        }
      }
}

TEST(TensorSlice, UnevenHeadsKeepTheirGroups) {
  const auto smollm2 = model(9, 3);
  EXPECT_EQ(slice_of(smollm2, Split::head_rows, {36, 20}, 0, 2),
            (Slice{.axis = 0, .begin = 0, .length = 12}));
  EXPECT_EQ(slice_of(smollm2, Split::head_rows, {36, 20}, 1, 2),
            (Slice{.axis = 0, .begin = 12, .length = 24}));
  EXPECT_EQ(slice_of(smollm2, Split::head_columns, {20, 36}, 1, 2),
            (Slice{.axis = 1, .begin = 12, .length = 24}));
  EXPECT_EQ(local_kv_heads(smollm2, 0, 2), 1);
  EXPECT_EQ(local_kv_heads(smollm2, 1, 2), 2);
}

TEST(TensorSlice, NeighboursShareAKeyHeadWhenThereAreMoreRanks) {
  const auto config = model(8, 2);
  for (int64_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(slice_of(config, Split::kv_heads, {8, 20}, rank, 4),
              (Slice{.axis = 0, .begin = rank / 2 * 4, .length = 4}));
    EXPECT_EQ(slice_of(config, Split::head_rows, {32, 20}, rank, 4),
              (Slice{.axis = 0, .begin = rank * 8, .length = 8}));
  }
  EXPECT_EQ(copies_of(config, Split::kv_heads, 4), 2);
  EXPECT_EQ(copies_of(config, Split::kv_heads, 2), 1);
  EXPECT_EQ(copies_of(config, Split::none, 4), 4);
  EXPECT_EQ(copies_of(config, Split::head_rows, 4), 1);
}

TEST(TensorSlice, VocabularyIsNotPadded) {
  EXPECT_THAT(lengths({}, Split::vocabulary, {257, 20}, 4), testing::ElementsAre(65, 65, 65, 62));
  EXPECT_THAT(lengths({}, Split::vocabulary, {5, 20}, 4), testing::ElementsAre(2, 2, 1, 0));
  EXPECT_THAT(lengths({}, Split::vocabulary, {2, 20}, 4), testing::ElementsAre(1, 1, 0, 0));
}

TEST(TensorSlice, PartsOfTheMlpDifferByOneAtMost) {
  EXPECT_THAT(lengths(model(4, 2), Split::rows, {23, 20}, 4), testing::ElementsAre(5, 6, 6, 6));
  EXPECT_THAT(lengths(model(4, 2), Split::columns, {20, 23}, 4), testing::ElementsAre(5, 6, 6, 6));
}

TEST(TensorSlice, RanksThatDoNotFitAreRefused) {
  EXPECT_TRUE(fits(model(4, 2), 1));
  EXPECT_TRUE(fits(model(4, 2), 2));
  EXPECT_TRUE(fits(model(4, 2), 4));
  EXPECT_TRUE(fits(model(9, 3), 2));
  EXPECT_FALSE(fits(model(4, 2), 3)) << "more than key heads, and not a multiple of them";
  EXPECT_FALSE(fits(model(4, 2), 8)) << "more than heads";
  EXPECT_FALSE(fits(model(12, 2), 8)) << "12 heads on 8 ranks";
  EXPECT_FALSE(fits(model(48, 24), 24)) << "more than 23 MLP units";
  EXPECT_TRUE(fits(model(4, 2), 4, 32));
  EXPECT_FALSE(fits(model(4, 2), 4, 30));
}

}  // namespace ee::parallel
