#include "ee/eval/quality.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace ee::eval {
namespace {

using config::ExitPolicy;

// Tokens whose confidences follow a known law: an exit agrees with probability score^sharpness, and some
// sequences are harder than others, so that tokens of one sequence are not independent.
struct KnownModel {
  std::vector<double> sharpness = {1.5, 0.8};  // of each exit

  ScoreTable draw(int64_t sequences, int64_t length, uint64_t seed) const {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    ScoreTable table{.tokens = std::vector<int64_t>(static_cast<size_t>(sequences), length)};
    for (size_t e = 0; e < sharpness.size(); ++e) {
      table.exits.push_back({.layer = static_cast<int64_t>(e) + 1, .depth = static_cast<int64_t>(e) + 1});
    }
    for (int64_t s = 0; s < sequences; ++s) {
      const double hard = 0.7 + 0.6 * uniform(random);
      for (int64_t i = 0; i < length; ++i) {
        for (size_t e = 0; e < sharpness.size(); ++e) {
          const double score = std::pow(uniform(random), 0.5);
          table.exits[e].score.push_back(static_cast<float>(score));
          table.exits[e].agree.push_back(uniform(random) < std::pow(score, sharpness[e] * hard));
        }
      }
    }
    return table;
  }
};

TEST(Quality, TheWantedAgreementHoldsOnFreshTokensAsOftenAsPromised) {
  const KnownModel known;
  for (const double agreement : {0.95, 0.9}) {
    constexpr int kTrials = 200;
    int held = 0;
    double leaving = 0.0;
    for (uint64_t trial = 0; trial < kTrials; ++trial) {
      const ScoreTable fit = known.draw(20, 100, 3 * trial), test = known.draw(40, 100, 3 * trial + 1);
      const LevelResult found = find_level(fit, test, agreement, 0.9, ExitPolicy::confidence);
      const Outcome fresh = apply_rules(known.draw(1000, 100, 3 * trial + 2), found.level.exits);
      held += fresh.risk() <= 1 - agreement;
      leaving += fresh.leaving() / kTrials;
    }
    EXPECT_GE(held, 0.9 * kTrials) << "at " << agreement;
    EXPECT_GT(leaving, 0.1) << "at " << agreement;  // a promise kept by never leaving tests nothing
  }
}

TEST(Quality, ALooserLevelLetsMoreTokensLeave) {
  const KnownModel known;
  const ScoreTable fit = known.draw(40, 100, 1), test = known.draw(60, 100, 2);
  double before = 0.0;
  for (const double agreement : {0.98, 0.95, 0.9, 0.8}) {
    const LevelResult found = find_level(fit, test, agreement, 0.95, ExitPolicy::confidence);
    EXPECT_GT(found.outcome.leaving(), before);
    EXPECT_LE(found.outcome.risk(), found.bound);
    EXPECT_LE(found.bound, 1 - agreement);
    before = found.outcome.leaving();
  }
}

TEST(Quality, NothingLeavesWithTooFewSequencesOrAnUnreachableLevel) {
  const KnownModel known, hopeless{.sharpness = {1e9, 1e9}};
  const auto never = [](const LevelResult& found) {
    return std::ranges::all_of(found.level.exits,
                               [](const config::ExitRule& rule) { return rule.threshold == 1.0; });
  };
  EXPECT_TRUE(never(find_level(known.draw(20, 100, 1), known.draw(kFewestSequences - 1, 100, 2), 0.5, 0.9,
                               ExitPolicy::confidence)));
  EXPECT_TRUE(never(
      find_level(hopeless.draw(20, 100, 1), hopeless.draw(40, 100, 2), 0.99, 0.95, ExitPolicy::confidence)));
}

TEST(Quality, TheGateInFrontLosesFewTokensThatWouldLeave) {
  KnownModel known;
  ScoreTable fit = known.draw(40, 100, 1), test = known.draw(60, 100, 2);
  for (ScoreTable* table : {&fit, &test}) {
    for (ExitScores& exit : table->exits) {
      for (const float score : exit.score) {
        exit.before.push_back(0.5f * score);  // as good as the score itself
      }
    }
  }
  const LevelResult with = find_level(fit, test, 0.9, 0.95, ExitPolicy::gate);
  std::vector<config::ExitRule> open = with.level.exits;
  for (config::ExitRule& rule : open) {
    EXPECT_GT(rule.ask, 0.0);
    rule.ask = 0.0;
  }
  const Outcome all = apply_rules(test, open);
  EXPECT_GT(with.outcome.leaving(), 0.9 * all.leaving());
  EXPECT_LT(with.outcome.heads, 0.8 * all.heads);
}

TEST(Quality, ApplyRulesEqualsCountingTokenByToken) {
  const ScoreTable table = KnownModel().draw(5, 40, 3);
  const std::vector<config::ExitRule> rules = {{.layer = 1, .threshold = 0.9},
                                               {.layer = 2, .threshold = 0.6}};
  int leave[2] = {}, wrong = 0;
  for (size_t i = 0; i < 200; ++i) {
    const int exit = table.exits[0].score[i] >= 0.9 ? 0 : table.exits[1].score[i] >= 0.6 ? 1 : 2;
    if (exit < 2) {
      ++leave[exit];
      wrong += !table.exits[static_cast<size_t>(exit)].agree[i];
    }
  }
  const Outcome outcome = apply_rules(table, rules);
  EXPECT_NEAR(outcome.leave[0], leave[0] / 200.0, 1e-9);
  EXPECT_NEAR(outcome.leave[1], leave[1] / 200.0, 1e-9);
  EXPECT_NEAR(outcome.risk(), wrong / 200.0, 1e-9);
  EXPECT_NEAR(outcome.heads, 1.0 + (200 - leave[0]) / 200.0, 1e-9);
}

// Sequences of unequal length: the mean over tokens is bounded, not that over sequences.
TEST(Quality, RisksOfUnequalSequencesAverageToTheShareOfAllTokens) {
  ScoreTable table = KnownModel().draw(40, 5, 3);  // the same 200 tokens, cut elsewhere
  table.tokens = {1, 3, 0, 80, 6, 110};
  const std::vector<config::ExitRule> rules = {{.layer = 1, .threshold = 0.5},
                                               {.layer = 2, .threshold = 0.5}};
  const Outcome outcome = apply_rules(table, rules);
  ScoreTable whole = table;
  whole.tokens = {200};
  const double share = apply_rules(whole, rules).risk();
  EXPECT_GT(share, 0.0);
  ASSERT_EQ(outcome.risks.size(), 6u);
  EXPECT_NEAR(outcome.risk(), share, 1e-9);
  EXPECT_NEAR(outcome.risks[2], share, 1e-9) << "no tokens, no evidence";
}

TEST(Quality, TheBoundOfARatioHoldsForUnequalSequences) {
  std::mt19937_64 random(11);
  std::uniform_int_distribution<int64_t> length(5, 200);
  const std::vector<config::ExitRule> rules = {{.layer = 1, .threshold = 0.5}};
  const KnownModel known{.sharpness = {1.5}};
  const double truth = apply_rules(known.draw(4000, 100, 1), rules).risk();
  int covered = 0;
  for (uint64_t trial = 0; trial < 300; ++trial) {
    ScoreTable table = known.draw(1, 0, trial);
    for (uint64_t s = 0; s < 40; ++s) {
      const int64_t tokens = length(random);
      const ScoreTable one = known.draw(1, tokens, 1000 + 40 * trial + s);
      table.tokens.push_back(tokens);
      std::ranges::copy(one.exits[0].score, std::back_inserter(table.exits[0].score));
      std::ranges::copy(one.exits[0].agree, std::back_inserter(table.exits[0].agree));
    }
    table.tokens.erase(table.tokens.begin());
    covered += upper_bound(apply_rules(table, rules).risks, 0.95) >= truth;
  }
  EXPECT_GE(covered, 273);  // of 285 expected; their standard deviation is 4
  EXPECT_LT(covered, 300);
}

TEST(Quality, UpperBoundCoversTheMeanOfSkewedNumbers) {
  std::mt19937_64 random(7);
  std::gamma_distribution<double> gamma(1.5, 0.02);  // skewness 1.6
  int covered = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<double> values(40);
    for (double& value : values) {
      value = gamma(random);
    }
    covered += upper_bound(values, 0.95) >= 0.03;
  }
  EXPECT_GE(covered, 1850);  // of 1900: the bound is asymptotic, and this far from the normal distribution
  EXPECT_LE(covered, 1960);  // and not much wider than needed
  EXPECT_EQ(upper_bound(std::vector<double>(kFewestSequences - 1, 0.0), 0.5), 1.0);
  EXPECT_LT(upper_bound(std::vector<double>(64, 0.0), 0.95), 0.02);
  EXPECT_GT(upper_bound(std::vector<double>(64, 0.0), 0.95), 0.0);
}

TEST(Quality, MonotoneMapIsTheBestFitAmongMonotoneOnes) {
  const std::vector<float> score = {0.5f, 0.1f, 0.3f, 0.2f, 0.4f, 0.4f};
  const std::vector<uint8_t> agree = {1, 0, 0, 1, 1, 0};
  const std::vector<MapStep> map = monotone_map(score, agree);
  ASSERT_EQ(map.size(), 3u);  // 0 | 1 0 and 1 0 (a tie) pooled | 1
  EXPECT_FLOAT_EQ(static_cast<float>(map[0].score), 0.1f);
  EXPECT_EQ(map[0].agreement, 0.0);
  EXPECT_FLOAT_EQ(static_cast<float>(map[1].score), 0.2f);
  EXPECT_EQ(map[1].agreement, 0.5);
  EXPECT_FLOAT_EQ(static_cast<float>(map[2].score), 0.5f);
  EXPECT_EQ(map[2].agreement, 1.0);
  EXPECT_FLOAT_EQ(static_cast<float>(threshold_at(map, 0.5)), 0.2f);
  EXPECT_FLOAT_EQ(static_cast<float>(threshold_at(map, 0.6)), 0.5f);
  EXPECT_EQ(threshold_at(std::span(map).first(2), 0.6), 1.0);
}

TEST(Quality, CalibrationErrorIsZeroForAPerfectForecastAndItsDistanceOtherwise) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<float> confidence(100000), bold;
  std::vector<uint8_t> agree;
  for (float& p : confidence) {
    p = static_cast<float>(0.7 * uniform(random));
    agree.push_back(uniform(random) < p);
    bold.push_back(p + 0.25f);
  }
  EXPECT_LT(expected_calibration_error(confidence, agree), 0.01);
  EXPECT_NEAR(expected_calibration_error(bold, agree), 0.25, 0.01);
  EXPECT_EQ(expected_calibration_error(std::vector<float>{1.0f}, std::vector<uint8_t>{1}), 0.0);
}

TEST(Quality, SelectionRanksAPerfectScoreAboveARandomOne) {
  const std::vector<uint8_t> agree = {1, 0, 1, 0};
  const double wanted[] = {1.0, 0.6};
  const Selection perfect = selection(std::vector<float>{0.9f, 0.2f, 0.8f, 0.1f}, agree, wanted);
  EXPECT_DOUBLE_EQ(perfect.area, (1.0 + 1.0 + 2.0 / 3 + 0.5) / 4);
  EXPECT_EQ(perfect.shares, (std::vector<double>{0.5, 0.75}));
  const Selection constant = selection(std::vector<float>(4, 0.5f), agree, wanted);
  EXPECT_EQ(constant.shares, (std::vector<double>{0.0, 0.0}));  // equal scores leave together or not at all
}

}  // namespace
}  // namespace ee::eval
