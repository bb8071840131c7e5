#include "ee/eval/placement.h"

#include <gtest/gtest.h>

#include <random>

#include "ee/base/error.h"

namespace ee::eval {
namespace {

// Exits after layers 1..layers-1 of a model; each token has a depth from which on exits agree with the final
// layer and are sure of it.
ScoreTable table(int64_t layers, int64_t sequences, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> easy_from;
  ScoreTable result{.tokens = std::vector<int64_t>(static_cast<size_t>(sequences), 64)};
  std::discrete_distribution<int> depth({0, 0, 6, 0, 1, 3, 0, 2});
  for (int64_t i = 0; i < sequences * 64; ++i) easy_from.push_back(depth(random));
  for (int64_t layer = 1; layer < layers; ++layer) {
    ExitScores exit{.layer = layer, .depth = layer};
    std::uniform_real_distribution<float> low(0.0F, 0.6F), high(0.7F, 1.0F);
    for (const double from : easy_from) {
      const bool agrees = static_cast<double>(layer) >= from;
      exit.agree.push_back(agrees);
      exit.score.push_back(agrees ? high(random) : low(random));
    }
    result.exits.push_back(std::move(exit));
  }
  return result;
}

double saved_by(const ScoreTable& map, const ScoreTable& test, const PlacementOptions& options,
                const std::vector<size_t>& chosen) {
  ScoreTable a{.tokens = map.tokens}, b{.tokens = test.tokens};
  for (const size_t i : chosen) a.exits.push_back(map.exits[i]), b.exits.push_back(test.exits[i]);
  const auto level = find_level(a, b, options.agreement, options.confidence, config::ExitPolicy::confidence);
  double saved = -options.exit_cost * level.outcome.heads;
  for (size_t i = 0; i < chosen.size(); ++i)
    saved += level.outcome.leave[i] * static_cast<double>(options.layers - b.exits[i].depth);
  return saved;
}

TEST(Placement, IsAsGoodAsTheBestOfAllPairs) {
  const ScoreTable map = table(8, 16, 1), test = table(8, 24, 2);
  for (const double cost : {0.0, 0.5, 2.0}) {
    const PlacementOptions options{.count = 2, .layers = 8, .exit_cost = cost};
    const Placement placement = place_exits(map, test, options);
    double best = -100;
    for (size_t i = 0; i < 7; ++i)
      for (size_t j = i + 1; j < 7; ++j) best = std::max(best, saved_by(map, test, options, {i, j}));
    EXPECT_DOUBLE_EQ(placement.saved, best) << cost;
    EXPECT_EQ(placement.layers.size(), 2u);
  }
}

// Half of the tokens are easy from layer 2 on: one exit belongs there.
TEST(Placement, PutsOneExitWhereTokensBecomeEasy) {
  const PlacementOptions options{.count = 1, .layers = 8, .exit_cost = 1.0};
  const Placement placement = place_exits(table(8, 16, 3), table(8, 24, 4), options);
  EXPECT_EQ(placement.layers, std::vector<int64_t>{2});
  EXPECT_NEAR(placement.saved, 0.5 * 6 - 1.0, 0.2);
  const std::string text = to_table(placement, options);
  EXPECT_NE(text.find("<- chosen"), std::string::npos) << text;
  EXPECT_EQ(text.find("no choice saves"), std::string::npos) << text;
}

TEST(Placement, SaysWhenLookingCostsMoreThanLeavingBrings) {
  const PlacementOptions options{.count = 2, .layers = 8, .exit_cost = 20.0};
  const Placement placement = place_exits(table(8, 16, 3), table(8, 24, 4), options);
  EXPECT_LT(placement.saved, 0);
  EXPECT_NE(to_table(placement, options).find("no choice saves anything"), std::string::npos);
}

// What is drawn: a bar a layer, as high as its share of leaving tokens, the chosen ones dark.
TEST(Placement, IsDrawnToScale) {
  const PlacementOptions options{.count = 2, .layers = 8, .exit_cost = 1.0};
  const Placement placement = place_exits(table(8, 16, 3), table(8, 24, 4), options);
  const std::string svg = to_svg(placement, options);
  const auto count = [&](const std::string& what) {
    size_t found = 0;
    for (size_t at = svg.find(what); at != std::string::npos; at = svg.find(what, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count("fill=\"#2563a8\""), 2u);
  EXPECT_EQ(count("fill=\"#b9d0e8\""), placement.candidates.size() - 2);
  for (const Candidate& candidate : placement.candidates)
    EXPECT_EQ(count(fmt::format("height=\"{:.1f}\" fill", 280 * candidate.leaving)) > 0, true) << svg;
}

TEST(Placement, MoreExitsThanLayersAreTheUsersError) {
  EXPECT_THROW(place_exits(table(4, 16, 5), table(4, 24, 6), {.count = 4, .layers = 4}), base::UserError);
}

}  // namespace
}  // namespace ee::eval
