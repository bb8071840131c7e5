#include "strict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ee::comm {
namespace {

Operation collective(const std::string& name, const std::string& tensor) {
  return {.name = name, .group = "g", .tensor = tensor, .others = {1}};
}

Operation message(const std::string& name, int peer, int tag) {
  return {.name = name, .group = "g", .tensor = "float32 [4]", .others = {peer}, .peer = peer, .tag = tag};
}

std::string compare(const Operation& mine, int my_number, const Operation& theirs, int their_number) {
  return compare_signatures(signature(mine, my_number, "step 7: "), 0,
                            signature(theirs, their_number, "step 8: "), 1);
}

TEST(StrictSignatures, EqualCollectivesAndMatchingMessagesPass) {
  EXPECT_EQ(compare(collective("all_gather", "float32 [4]"), 3, collective("all_gather", "float32 [4]"), 3),
            "");
  EXPECT_EQ(compare(message("send", 1, 5), 3, message("receive", 0, 5), 3), "");
}

TEST(StrictSignatures, EveryDifferenceIsShownFromBothSides) {
  const auto shape =
      compare(collective("all_gather", "float32 [4]"), 3, collective("all_gather", "float32 [5]"), 3);
  EXPECT_THAT(shape, ::testing::AllOf(::testing::HasSubstr("rank 0: step 7: all_gather of float32 [4]"),
                                      ::testing::HasSubstr("rank 1: step 8: all_gather of float32 [5]")));
  EXPECT_NE(compare(collective("all_gather", "float32 [4]"), 3, collective("barrier", ""), 3), "");
  EXPECT_NE(compare(collective("barrier", ""), 3, collective("barrier", ""), 4), "");
  EXPECT_NE(compare(message("send", 1, 5), 3, message("receive", 0, 6), 3), "");
  EXPECT_THAT(compare(message("send", 1, 5), 3, message("send", 0, 5), 3),
              ::testing::HasSubstr("NCCL never ends"));
}

TEST(StrictSignatures, SurviveTheWayThroughATensor) {
  const std::string text = signature(message("send", 1, 5), 3, "");
  EXPECT_EQ(signature_text(signature_tensor(text)), text);
  const std::string longer(5000, 'x');
  EXPECT_EQ(signature_text(signature_tensor(longer)).size(), static_cast<std::size_t>(kSignatureBytes) - 1);
}

}  // namespace
}  // namespace ee::comm
