#include "turns.h"

#include <gtest/gtest.h>

#include <set>

namespace ee::train {
using config::HiftOrder;

namespace {

std::vector<UnitRange> a_cycle(const Turns& turns, int64_t groups, int64_t first_step = 0) {
  std::vector<UnitRange> ranges;
  for (int64_t i = 0; i < groups; ++i) ranges.push_back(turns.active(first_step + i));
  return ranges;
}

}  // namespace

TEST(Turns, WithoutGroupsAllTakePartInEveryStep) {
  const Turns turns({}, 6, 1);
  for (const int64_t step : {0, 1, 17}) {
    EXPECT_EQ(turns.active(step), (UnitRange{0, 7}));
    EXPECT_EQ(turns.cycle(step), step);
    EXPECT_EQ(turns.rate_step(step), step);
  }
}

TEST(Turns, GroupsCoverEachUnitOnce) {
  for (int64_t groups = 1; groups <= Turns::units(6); ++groups)
    for (const auto order : {HiftOrder::bottom_up, HiftOrder::top_down, HiftOrder::random}) {
      std::multiset<int64_t> units;
      for (const auto& range : a_cycle(Turns({.groups = groups, .order = order}, 6, 1), groups)) {
        EXPECT_LE(range.first, range.last);
        for (int64_t unit = range.first; unit <= range.last; ++unit) units.insert(unit);
      }
      EXPECT_EQ(units, (std::multiset<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
    }
}

TEST(Turns, OrderIsThatOfTheOption) {
  const std::vector<UnitRange> up = {{0, 1}, {2, 3}, {4, 5}, {6, 7}}, down = {up.rbegin(), up.rend()};
  EXPECT_EQ(a_cycle(Turns({.groups = 4, .order = HiftOrder::bottom_up}, 6, 1), 4), up);
  EXPECT_EQ(a_cycle(Turns({.groups = 4, .order = HiftOrder::top_down}, 6, 1), 4), down);
  const Turns random({.groups = 4, .order = HiftOrder::random}, 6, 1);
  EXPECT_EQ(a_cycle(random, 4), a_cycle(random, 4, 8)) << "drawn once";
  bool differs = false;
  for (int64_t seed = 0; seed < 5; ++seed)
    differs |= a_cycle(Turns({.groups = 4, .order = HiftOrder::random}, 6, seed), 4) != up;
  EXPECT_TRUE(differs);
}

TEST(Turns, RateMovesOnAfterACycle) {
  const Turns turns({.groups = 3}, 6, 1);
  const std::vector<int64_t> expected = {0, 0, 0, 3, 3, 3, 6};
  for (int64_t step = 0; step < 7; ++step) {
    EXPECT_EQ(turns.rate_step(step), expected[static_cast<size_t>(step)]);
    EXPECT_EQ(turns.cycle(step), step / 3);
  }
}

}  // namespace ee::train
