#include "turns.h"

#include <algorithm>
#include <random>

namespace ee::train {

Turns::Turns(const config::HiftOptions& options, int64_t layers, int64_t seed) {
  const int64_t groups = std::max<int64_t>(1, options.groups);
  for (int64_t g = 0; g < groups; ++g)
    groups_.push_back({units(layers) * g / groups, units(layers) * (g + 1) / groups - 1});
  if (options.order == config::HiftOrder::top_down) std::ranges::reverse(groups_);
  if (options.order != config::HiftOrder::random) return;
  std::mt19937_64 random(static_cast<uint64_t>(seed));  // by hand: std::shuffle differs between libraries
  for (size_t i = groups_.size(); i > 1; --i) std::swap(groups_[i - 1], groups_[random() % i]);
}

}  // namespace ee::train
