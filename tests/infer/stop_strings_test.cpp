#include "ee/infer/stop_strings.h"

#include <gtest/gtest.h>

#include <random>

#include "ee/base/error.h"

namespace ee::infer {
namespace {

// The text so far ends where the first stop string in it begins.
std::string naive_cut(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
  std::string text;
  for (const std::string& piece : pieces) {
    text += piece;
    size_t end = std::string::npos;
    for (const std::string& stop : stops) {
      end = std::min(end, text.find(stop));
    }
    if (end != std::string::npos) {
      return text.substr(0, end);
    }
  }
  return text;
}

TEST(StopStrings, HoldsBackWhatMayBecomeAStopString) {
  StopStrings stops({"\nUser:"});
  EXPECT_EQ(stops.push("hello\n"), "hello");
  EXPECT_EQ(stops.push("Us"), "");
  EXPECT_EQ(stops.push("ing it"), "\nUsing it");
  EXPECT_EQ(stops.push("\nUser"), "");
  EXPECT_FALSE(stops.stopped());
  EXPECT_EQ(stops.push(": x"), "");
  EXPECT_TRUE(stops.stopped());
  EXPECT_EQ(stops.push("more"), "");
  EXPECT_EQ(stops.finish(), "");
}

TEST(StopStrings, ReleasesTheRestWhenTheTextEnds) {
  StopStrings stops({"END"});
  EXPECT_EQ(stops.push("the EN"), "the ");
  EXPECT_EQ(stops.finish(), "EN");
}

TEST(StopStrings, PassesEverythingWithoutStops) {
  StopStrings stops({});
  EXPECT_EQ(stops.push("abc"), "abc");
}

TEST(StopStrings, AgreesWithSearchingTheWholeText) {
  std::mt19937 random(5);
  const auto letters = [&](size_t length) {
    std::string text;
    while (text.size() < length) {
      text += static_cast<char>('a' + random() % 2);
    }
    return text;
  };
  int stopped = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::vector<std::string> stops = {letters(1 + random() % 6), letters(3 + random() % 6)};
    std::vector<std::string> pieces;
    for (int i = 0; i < 8; ++i) {
      pieces.push_back(letters(random() % 4));
    }
    StopStrings filter(stops);
    std::string text;
    for (const std::string& piece : pieces) {
      text += filter.push(piece);
      const std::string whole = naive_cut(pieces, stops);
      ASSERT_TRUE(whole.starts_with(text)) << "released too early: " << text << " of " << whole;
    }
    stopped += filter.stopped();
    ASSERT_EQ(text + filter.finish(), naive_cut(pieces, stops));
  }
  EXPECT_GT(stopped, 500);
  EXPECT_LT(stopped, 1990);
}

TEST(StopStrings, RefusesAnEmptyStop) { EXPECT_THROW(StopStrings({"a", ""}), base::UserError); }

}  // namespace
}  // namespace ee::infer
