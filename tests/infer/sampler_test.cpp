#include "ee/infer/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "ee/base/error.h"

namespace ee::infer {
namespace {

const std::vector<double> kProbabilities = {0.05, 0.4, 0.1, 0.25, 0.15, 0.03, 0.02};

at::Tensor logits() {
  std::vector<float> values;
  for (const double p : kProbabilities) {
    values.push_back(static_cast<float>(std::log(p)) + 3.f);  // any constant changes nothing
  }
  return at::tensor(values);
}

std::vector<int64_t> draw(const SamplingOptions& options, int64_t count) {
  Sampler sampler(options);
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(sampler.sample(logits(), 1));
  }
  return tokens;
}

// Pearson's statistic of 20000 draws against `expected` (zero: must never be drawn) stays below the 99.9%
// quantile for six degrees of freedom.
void expect_distribution(const SamplingOptions& options, std::vector<double> expected) {
  constexpr int64_t kDraws = 20000;
  const double total = std::accumulate(expected.begin(), expected.end(), 0.0);
  std::vector<int64_t> counts(expected.size());
  for (const int64_t token : draw(options, kDraws)) {
    ++counts.at(static_cast<size_t>(token));
  }
  double statistic = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double mean = expected[i] / total * kDraws;
    if (mean == 0.0) {
      EXPECT_EQ(counts[i], 0) << "token " << i;
    } else {
      statistic += (static_cast<double>(counts[i]) - mean) * (static_cast<double>(counts[i]) - mean) / mean;
    }
  }
  EXPECT_LT(statistic, 22.46);
}

TEST(Sampler, TemperatureZeroIsGreedy) {
  for (const int64_t token : draw({.temperature = 0.0, .seed = 3}, 100)) {
    EXPECT_EQ(token, 1);
  }
}

TEST(Sampler, TemperatureOneDrawsFromTheDistribution) {
  expect_distribution({.temperature = 1.0, .seed = 1}, kProbabilities);
}

TEST(Sampler, TemperatureRaisesProbabilitiesToItsInverse) {
  std::vector<double> flat;
  for (const double p : kProbabilities) {
    flat.push_back(std::sqrt(p));
  }
  expect_distribution({.temperature = 2.0, .seed = 2}, flat);
}

TEST(Sampler, TopKKeepsTheMostProbable) {
  expect_distribution({.temperature = 1.0, .top_k = 3, .seed = 3}, {0, 0.4, 0, 0.25, 0.15, 0, 0});
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  expect_distribution({.temperature = 1.0, .top_p = 0.7, .seed = 4}, {0, 0.4, 0, 0.25, 0.15, 0, 0});
  expect_distribution({.temperature = 1.0, .top_p = 0.3, .seed = 4}, {0, 0.4, 0, 0, 0, 0, 0});
}

TEST(Sampler, TopPCountsOnlyWhatTopKLeft) {
  // Of the four left, 0.4 + 0.25 are 0.72 of the weight.
  expect_distribution({.temperature = 1.0, .top_k = 4, .top_p = 0.7, .seed = 5}, {0, 0.4, 0, 0.25, 0, 0, 0});
}

TEST(Sampler, MinPIsAFractionOfTheLargest) {
  expect_distribution({.temperature = 1.0, .min_p = 0.3, .seed = 6}, {0, 0.4, 0, 0.25, 0.15, 0, 0});
}

TEST(Sampler, TheSeedDeterminesTheDraws) {
  EXPECT_EQ(draw({.temperature = 1.0, .seed = 7}, 50), draw({.temperature = 1.0, .seed = 7}, 50));
  EXPECT_NE(draw({.temperature = 1.0, .seed = 7}, 50), draw({.temperature = 1.0, .seed = 8}, 50));
}

TEST(Sampler, SkippedTokensTakeTheirRandomNumbersWithThem) {
  const SamplingOptions options{.temperature = 1.0, .seed = 5};
  const std::vector<int64_t> all = draw(options, 40);
  Sampler odd(options);
  for (size_t i = 0; i < all.size(); i += 2) {
    odd.skip();
    EXPECT_EQ(odd.sample(logits(), 1), all[i + 1]) << "token " << i + 1;
  }
}

TEST(Sampler, SurvivesExtremeLogits) {
  Sampler sampler({.temperature = 1e-3, .seed = 1});
  EXPECT_EQ(sampler.sample(at::tensor({-1e30f, 80.f, 79.f, -INFINITY}), 1), 1);
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  for (const SamplingOptions& wrong :
       {SamplingOptions{.temperature = -0.1}, SamplingOptions{.temperature = NAN},
        SamplingOptions{.temperature = INFINITY}, SamplingOptions{.top_k = -1}, SamplingOptions{.top_p = 0.0},
        SamplingOptions{.top_p = 1.1}, SamplingOptions{.min_p = -0.1}, SamplingOptions{.min_p = 2.0}}) {
    EXPECT_THROW(Sampler{wrong}, base::UserError);
  }
}

}  // namespace
}  // namespace ee::infer
