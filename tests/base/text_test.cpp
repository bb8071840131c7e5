#include "ee/base/text.h"

#include <gtest/gtest.h>

namespace ee::base {

TEST(NearestName, FindsATypo) {
  const std::vector<std::string> names = {"lr", "weight_decay", "clip_norm"};
  EXPECT_EQ(nearest_name("wieght_decay", names), "weight_decay");
  EXPECT_EQ(nearest_name("mpl", std::vector<std::string>{"norm", "mlp"}), "mlp");
  EXPECT_EQ(nearest_name("zzzzzzzz", names), "");
}

TEST(FormatBytes, PicksTheUnit) {
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(3.0 * 1024 * 1024 * 1024), "3.00 GiB");
}

TEST(Split, KeepsEmptyParts) { EXPECT_EQ(split("a,,b", ','), (std::vector<std::string>{"a", "", "b"})); }

}  // namespace ee::base
