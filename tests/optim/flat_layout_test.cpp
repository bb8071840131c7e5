#include "ee/optim/flat_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ee::optim {
using testing::ElementsAre;

TEST(FlatLayout, OneRankHasOneBucketAndWholeParameters) {
  const FlatLayout layout(std::vector<int64_t>{35, 7, 16}, 1, 16);
  EXPECT_THAT(layout.parameters(), ElementsAre(Range{0, 35}, Range{48, 55}, Range{64, 80}));
  EXPECT_THAT(layout.buckets(), ElementsAre(Range{0, 80}));
  EXPECT_EQ(layout.share({0, 80}, 0), (Range{0, 80}));
  EXPECT_THAT(layout.parts({0, 80}), ElementsAre(Part{0, {0, 35}}, Part{1, {48, 55}}, Part{2, {64, 80}}));
}

TEST(FlatLayout, SharesAreEqualAndCutThroughParameters) {
  const FlatLayout layout(std::vector<int64_t>{100, 7}, 2, 70);
  EXPECT_EQ(layout.size(), 128) << "112 + 7, in whole lines for both ranks";
  EXPECT_THAT(layout.buckets(), ElementsAre(Range{0, 64}, Range{64, 128}));
  EXPECT_EQ(layout.share({64, 128}, 0), (Range{64, 96}));
  EXPECT_EQ(layout.share({64, 128}, 1), (Range{96, 128}));
  EXPECT_THAT(layout.parts({96, 128}), ElementsAre(Part{0, {96, 100}}, Part{1, {112, 119}}));
}

// Whatever the sizes: each element of each parameter is in just one share, and borders are aligned.
TEST(FlatLayout, SharesCoverEveryParameterOnce) {
  const std::vector<int64_t> sizes = {1, 333, 16, 48, 5, 1000};
  for (const int64_t ranks : {1, 2, 3, 8})
    for (const int64_t bucket : {1, 100, 500, 100'000}) {
      const FlatLayout layout(sizes, ranks, bucket);
      std::vector<int64_t> covered(sizes.size(), 0);
      int64_t end = 0;
      for (const Range cut : layout.buckets())
        for (int64_t rank = 0; rank < ranks; ++rank) {
          const Range share = layout.share(cut, rank);
          EXPECT_EQ(share.begin, end);
          EXPECT_EQ(share.begin % FlatLayout::kAlignment, 0);
          EXPECT_EQ(share.size() * ranks, cut.size());
          end = share.end;
          for (const Part& part : layout.parts(share)) covered[part.parameter] += part.flat.size();
        }
      EXPECT_EQ(end, layout.size());
      EXPECT_EQ(covered, sizes) << ranks << " ranks, buckets of " << bucket;
    }
}

TEST(FlatLayout, NoParametersNeedNoBuffer) {
  const FlatLayout layout({}, 2, 100);
  EXPECT_EQ(layout.size(), 0);
  EXPECT_TRUE(layout.buckets().empty());
}

}  // namespace ee::optim
