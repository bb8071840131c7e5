#include "ee/infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ee/base/error.h"

namespace ee::infer {

namespace {

constexpr uint64_t kStep = 0x9e3779b97f4a7c15ULL;  // of a splitmix64 state, one a token

struct Candidate {
  int64_t token;
  double weight;  // proportional to the probability
};

// Keeps the fewest first candidates (sorted, most probable first) whose probability reaches top_p.
void keep_top_p(std::vector<Candidate>& candidates, double top_p) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) {
    total += candidate.weight;
  }
  double sum = 0.0;
  size_t keep = 0;
  while (keep < candidates.size() && (keep == 0 || sum < top_p * total)) {
    sum += candidates[keep++].weight;
  }
  candidates.resize(keep);
}

// u in [0, 1) picks a candidate with a chance proportional to its weight.
int64_t draw(const std::vector<Candidate>& candidates, double u) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) {
    total += candidate.weight;
  }
  double left = u * total;
  for (const Candidate& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0.0) {
      return candidate.token;
    }
  }
  return candidates.back().token;  // rounding
}

}  // namespace

void check_sampling(const SamplingOptions& options) {
  if (!(options.temperature >= 0.0) || !std::isfinite(options.temperature)) {
    throw base::UserError("temperature is {}, expected a number >= 0 (0: greedy)", options.temperature);
  }
  if (options.top_k < 0) {
    throw base::UserError("top-k is {}, expected a number >= 0 (0: all tokens)", options.top_k);
  }
  if (!(options.top_p > 0.0 && options.top_p <= 1.0)) {
    throw base::UserError("top-p is {}, expected a number in (0, 1]", options.top_p);
  }
  if (!(options.min_p >= 0.0 && options.min_p <= 1.0)) {
    throw base::UserError("min-p is {}, expected a number in [0, 1]", options.min_p);
  }
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), state_(options.seed) {
  check_sampling(options);
}

// splitmix64 (Steele, Lea, Flood 2014): small, portable, and its state is the seed plus a constant per draw.
double Sampler::uniform() {
  uint64_t z = (state_ += kStep);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

void Sampler::skip() { state_ += kStep; }

int64_t Sampler::sample(const at::Tensor& logits, int64_t most_probable) {
  if (options_.temperature == 0.0) {
    return most_probable;
  }
  const float* values = logits.const_data_ptr<float>();
  const float largest = values[most_probable];
  EE_CHECK(std::isfinite(largest), "the largest logit is {}", largest);
  std::vector<Candidate> candidates;
  for (int64_t token = 0; token < logits.numel(); ++token) {
    const double weight = std::exp((static_cast<double>(values[token]) - largest) / options_.temperature);
    if (weight > 0.0) {
      candidates.push_back({token, weight});
    }
  }
  const auto more_probable = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
  };
  const auto top_k = static_cast<size_t>(options_.top_k);
  if (top_k > 0 && top_k < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + options_.top_k, candidates.end(),
                     more_probable);
    candidates.resize(top_k);
  }
  if (options_.top_p < 1.0) {
    std::sort(candidates.begin(), candidates.end(), more_probable);
    keep_top_p(candidates, options_.top_p);
  }
  // The most probable token's weight is 1.
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.weight < options_.min_p; });
  return draw(candidates, uniform());
}

}  // namespace ee::infer
