#include "ee/eval/quality.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <numeric>

#include "ee/base/error.h"

namespace ee::eval {

namespace {

constexpr int kLevels = 200;             // t = 1, 0.995, ... 0
constexpr double kLostAtTheGate = 0.02;  // share of an exit's leaving tokens that its gate in front may lose
constexpr size_t kBins = 15;

double mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Indices by ascending score.
std::vector<size_t> by_score(std::span<const float> score) {
  std::vector<size_t> order(score.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return score[i]; });
  return order;
}

// A value of `before` that all but kLostAtTheGate of the tokens reach whose score reaches the threshold.
double ask_from(const ExitScores& exit, double threshold) {
  std::vector<float> leaving;
  for (size_t i = 0; i < exit.before.size(); ++i) {
    if (exit.score[i] >= threshold) {
      leaving.push_back(exit.before[i]);
    }
  }
  if (leaving.empty()) {
    return 0.0;
  }
  const auto lost = static_cast<std::ptrdiff_t>(kLostAtTheGate * static_cast<double>(leaving.size()));
  std::ranges::nth_element(leaving, leaving.begin() + lost);
  return leaving[static_cast<size_t>(lost)];
}

std::vector<config::ExitRule> rules_at(const ScoreTable& fit, const std::vector<std::vector<MapStep>>& maps,
                                       double level) {
  std::vector<config::ExitRule> rules;
  for (size_t e = 0; e < maps.size(); ++e) {
    const double threshold = threshold_at(maps[e], level);
    const bool never = threshold >= 1.0;
    rules.push_back({.layer = fit.exits[e].layer,
                     .threshold = threshold,
                     .ask = never ? 0.0 : ask_from(fit.exits[e], threshold)});
  }
  return rules;
}

// Adds a token of the given weight to the outcome. 1 if it leaves and disagrees, otherwise 0.
double apply_to_token(const ScoreTable& table, const std::vector<config::ExitRule>& rules, size_t token,
                      double weight, Outcome& outcome) {
  for (size_t e = 0; e < rules.size(); ++e) {
    const ExitScores& exit = table.exits[e];
    if (rules[e].threshold >= 1.0 || (!exit.before.empty() && exit.before[token] < rules[e].ask)) {
      continue;
    }
    outcome.heads += weight;
    if (exit.score[token] >= rules[e].threshold) {
      outcome.leave[e] += weight;
      outcome.leave_agree[e] += exit.agree[token] * weight;
      return 1.0 - exit.agree[token];
    }
  }
  return 0.0;
}

}  // namespace

double Outcome::risk() const { return mean(risks); }
double Outcome::leaving() const { return std::accumulate(leave.begin(), leave.end(), 0.0); }

Outcome apply_rules(const ScoreTable& table, const std::vector<config::ExitRule>& rules) {
  EE_CHECK(rules.size() == table.exits.size(), "{} rules for {} exits", rules.size(), table.exits.size());
  Outcome outcome{.leave = std::vector<double>(rules.size()),
                  .leave_agree = std::vector<double>(rules.size())};
  const auto tokens =
      static_cast<double>(std::accumulate(table.tokens.begin(), table.tokens.end(), int64_t{0}));
  std::vector<double> wrong;  // of each sequence: tokens that leave and disagree
  size_t first = 0;
  for (const int64_t length : table.tokens) {
    const size_t end = first + static_cast<size_t>(length);
    wrong.push_back(0.0);
    for (size_t i = first; i < end; ++i) {
      wrong.back() += apply_to_token(table, rules, i, 1.0 / tokens, outcome);
    }
    first = end;
  }
  const double risk = std::accumulate(wrong.begin(), wrong.end(), 0.0) / tokens;
  const double mean_length = tokens / static_cast<double>(table.tokens.size());
  for (size_t s = 0; s < wrong.size(); ++s) {
    outcome.risks.push_back(risk + (wrong[s] - risk * static_cast<double>(table.tokens[s])) / mean_length);
  }
  return outcome;
}

double upper_bound(std::span<const double> values, double confidence) {
  if (values.size() < kFewestSequences) {
    return 1.0;
  }
  const auto n = static_cast<double>(values.size());
  const double center = mean(values);
  double second = 0.0, third = 0.0;
  for (const double value : values) {
    second += (value - center) * (value - center);
    third += (value - center) * (value - center) * (value - center);
  }
  const double variance = second / (n - 1);
  if (variance == 0.0) {  // all equal, say 0: as if one more sequence had been all wrong
    return std::min(1.0, center + (1.0 - center) / (n + 1));
  }
  const double t = boost::math::quantile(boost::math::students_t(n - 1), confidence);
  const double skewed = std::max(0.0, third / n) / (variance * n) * (1.0 / 6 + t * t / 3);
  return std::min(1.0, center + t * std::sqrt(variance / n) + skewed);
}

std::vector<MapStep> monotone_map(std::span<const float> score, std::span<const uint8_t> agree) {
  struct Block {
    double score, sum, count;
  };
  std::vector<Block> blocks;
  for (const size_t i : by_score(score)) {  // pool adjacent violators
    blocks.push_back({score[i], static_cast<double>(agree[i]), 1.0});
    while (blocks.size() > 1) {
      const Block last = blocks.back();
      Block& before = blocks[blocks.size() - 2];
      const bool rises = before.sum / before.count < last.sum / last.count;
      if (rises && before.score < last.score) {
        break;
      }
      before.sum += last.sum;
      before.count += last.count;
      blocks.pop_back();
    }
  }
  std::vector<MapStep> map;
  for (const Block& block : blocks) {
    map.push_back({block.score, block.sum / block.count});
  }
  return map;
}

double threshold_at(std::span<const MapStep> map, double level) {
  for (const MapStep& step : map) {
    if (step.agreement >= level) {
      return std::min(1.0, step.score);
    }
  }
  return 1.0;
}

LevelResult find_level(const ScoreTable& fit, const ScoreTable& test, double agreement, double confidence,
                       config::ExitPolicy policy) {
  std::vector<std::vector<MapStep>> maps;
  for (const ExitScores& exit : fit.exits) {
    maps.push_back(monotone_map(exit.score, exit.agree));
  }
  LevelResult found{
      .level = {.agreement = agreement, .confidence = confidence, .policy = policy, .exits = {}}};
  for (const ExitScores& exit : fit.exits) {
    found.level.exits.push_back({.layer = exit.layer});
  }
  found.outcome = apply_rules(test, found.level.exits);
  for (int step = 0; step <= kLevels; ++step) {
    std::vector<config::ExitRule> rules = rules_at(fit, maps, 1.0 - static_cast<double>(step) / kLevels);
    if (rules == found.level.exits) {
      continue;  // nobody leaves yet, or the same as the level before
    }
    Outcome outcome = apply_rules(test, rules);
    const double bound = upper_bound(outcome.risks, confidence);
    if (bound > 1.0 - agreement) {
      break;
    }
    found.level.exits = std::move(rules);
    found.outcome = std::move(outcome);
    found.bound = bound;
  }
  return found;
}

double expected_calibration_error(std::span<const float> confidence, std::span<const uint8_t> agree) {
  std::vector<double> difference(kBins);  // sums of confidence - agreement
  for (size_t i = 0; i < confidence.size(); ++i) {
    const auto bin = std::min(kBins - 1, static_cast<size_t>(confidence[i] * kBins));
    difference[bin] += confidence[i] - agree[i];
  }
  double error = 0.0;
  for (const double each : difference) {
    error += std::abs(each) / static_cast<double>(confidence.size());
  }
  return error;
}

Selection selection(std::span<const float> score, std::span<const uint8_t> agree,
                    std::span<const double> agreements) {
  std::vector<size_t> order = by_score(score);
  std::ranges::reverse(order);
  Selection result{.shares = std::vector<double>(agreements.size())};
  const auto tokens = static_cast<double>(order.size());
  double agreeing = 0.0;
  for (size_t i = 0; i < order.size(); ++i) {
    agreeing += agree[order[i]];
    const double among = agreeing / static_cast<double>(i + 1);
    result.area += among / tokens;
    const bool can_end = i + 1 == order.size() || score[order[i]] > score[order[i + 1]];
    for (size_t a = 0; a < agreements.size(); ++a) {
      if (can_end && among >= agreements[a]) {
        result.shares[a] = static_cast<double>(i + 1) / tokens;
      }
    }
  }
  return result;
}

}  // namespace ee::eval
