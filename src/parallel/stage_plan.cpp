#include "ee/parallel/stage_plan.h"

#include <algorithm>
#include <limits>

#include "ee/base/error.h"

namespace ee::parallel {

namespace {

// Linear partition by dynamic programming: best[s][l] is the dearest stage of the cheapest split of
// layers 1..l into s stages, and begin[s][l] the first layer of its last stage.
std::vector<int64_t> last_layers(const std::vector<double>& prefix, int64_t stages) {
  const auto layers = static_cast<int64_t>(prefix.size()) - 1;
  const double infinity = std::numeric_limits<double>::infinity();
  const auto table = [&](auto value) {
    return std::vector(static_cast<size_t>(stages + 1), std::vector(prefix.size(), value));
  };
  auto best = table(infinity);
  auto begin = table(int64_t{0});
  best[0][0] = 0;
  for (int64_t s = 1; s <= stages; ++s) {
    for (int64_t l = s; l <= layers; ++l) {
      for (int64_t b = s; b <= l; ++b) {
        const double dearest = std::max(best[s - 1][b - 1], prefix[l] - prefix[b - 1]);
        if (dearest < best[s][l]) best[s][l] = dearest, begin[s][l] = b;
      }
    }
  }
  std::vector<int64_t> ends(static_cast<size_t>(stages));
  for (int64_t s = stages, l = layers; s >= 1; --s) ends[s - 1] = l, l = begin[s][l] - 1;
  return ends;
}

}  // namespace

std::vector<StagePlan> plan_stages(const std::vector<DepthCost>& costs, int64_t stages) {
  const auto layers = static_cast<int64_t>(costs.size()) - 1;
  EE_CHECK(layers >= 1 && stages >= 1, "{} layers, {} stages", layers, stages);
  if (stages > layers)
    throw base::UserError(
        "parallel.pipeline: {} stages, but only {} layers lie before the last trained exit; use at "
        "most {} stages",
        stages, layers, layers);
  std::vector<double> prefix{0};
  for (int64_t l = 1; l <= layers; ++l)
    prefix.push_back(prefix.back() + costs[l].total() + (l == 1 ? costs[0].total() : 0));

  std::vector<StagePlan> plan;
  int64_t first = 1;
  for (const int64_t last : last_layers(prefix, stages)) {
    StagePlan stage{.first_layer = first, .last_layer = last};
    for (int64_t depth = first == 1 ? 0 : first; depth <= last; ++depth) {
      stage.forward += costs[depth].layer;
      stage.exits += costs[depth].exits;
    }
    plan.push_back(stage);
    first = last + 1;
  }
  return plan;
}

bool is_on_stage(const config::ExitSpec& exit, int64_t first_layer, int64_t last_layer) {
  const int64_t layer = std::max<int64_t>(exit.depth(), 1);
  return layer >= first_layer && layer <= last_layer;
}

}  // namespace ee::parallel
