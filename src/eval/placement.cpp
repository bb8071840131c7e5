#include "ee/eval/placement.h"

#include <algorithm>
#include <numeric>

#include "agreement.h"
#include "ee/base/error.h"
#include "ee/base/text.h"

namespace ee::eval {

namespace {

using Chosen = std::vector<size_t>;  // indices of candidates, ascending

ScoreTable only(const ScoreTable& table, const Chosen& chosen) {
  ScoreTable part{.sequences = table.sequences, .length = table.length};
  for (const size_t i : chosen) part.exits.push_back(table.exits[i]);
  return part;
}

class Search {
 public:
  Search(const ScoreTable& map, const ScoreTable& test, const PlacementOptions& options)
      : map_(map), test_(test), options_(options) {}

  LevelResult level(const Chosen& chosen) const {
    return find_level(only(map_, chosen), only(test_, chosen), options_.agreement, options_.confidence,
                      config::ExitPolicy::confidence);
  }

  double saved(const Chosen& chosen) const {
    const Outcome outcome = level(chosen).outcome;
    double layers = 0.0;
    for (size_t i = 0; i < chosen.size(); ++i)
      layers += outcome.leave[i] * static_cast<double>(options_.layers - test_.exits[chosen[i]].depth);
    return layers - options_.exit_cost * outcome.heads;
  }

  // The chosen ones with one more, or with one exchanged for another: whichever saves most.
  Chosen best_with(const Chosen& chosen) const {
    Chosen best;
    double most = 0.0;
    for (size_t i = 0; i < test_.exits.size(); ++i) {
      if (std::find(chosen.begin(), chosen.end(), i) != chosen.end()) continue;
      Chosen next = chosen;
      next.insert(std::upper_bound(next.begin(), next.end(), i), i);
      const double found = saved(next);
      if (!best.empty() && found <= most) continue;
      best = std::move(next);
      most = found;
    }
    return best;
  }

  Chosen exchange(Chosen chosen) const {
    for (;;) {
      const double before = saved(chosen);
      Chosen best = chosen;
      for (size_t i = 0; i < chosen.size(); ++i) {
        Chosen others = chosen;
        others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
        const Chosen next = best_with(others);
        if (saved(next) > saved(best)) best = next;
      }
      if (saved(best) <= before) return chosen;
      chosen = std::move(best);
    }
  }

 private:
  const ScoreTable &map_, &test_;
  const PlacementOptions& options_;
};

}  // namespace

Placement place_exits(const ScoreTable& map, const ScoreTable& test, const PlacementOptions& options) {
  const auto candidates = static_cast<int64_t>(test.exits.size());
  if (options.count < 1 || options.count > candidates)
    throw base::UserError("{} exits are to be placed, but there are 1 to {} layers for them", options.count,
                          candidates);
  const Search search(map, test, options);
  Placement placement;
  for (size_t i = 0; i < test.exits.size(); ++i) {
    const ExitScores& exit = test.exits[i];
    const double agreeing = std::accumulate(exit.agree.begin(), exit.agree.end(), 0.0);
    placement.candidates.push_back({.layer = exit.layer,
                                    .agreement = agreeing / static_cast<double>(exit.agree.size()),
                                    .leaving = search.level({i}).outcome.leaving(),
                                    .saved = search.saved({i})});
  }
  Chosen chosen;
  for (int64_t i = 0; i < options.count; ++i) chosen = search.best_with(chosen);
  chosen = search.exchange(chosen);
  for (const size_t i : chosen) placement.layers.push_back(test.exits[i].layer);
  placement.result = search.level(chosen);
  placement.saved = search.saved(chosen);
  return placement;
}

Placement place_exits(const infer::Model& model, const Sequences& sequences, const PlacementOptions& options,
                      const std::function<void(int64_t done)>& progress) {
  const auto count = static_cast<int64_t>(sequences.size()), map = count / 3;
  if (count - map < static_cast<int64_t>(kFewestSequences))
    throw base::UserError("the text gives {} sequences, placing exits wants at least {}; give more text",
                          count, kFewestSequences * 3 / 2);
  const std::vector<double> temperatures(model.exits.size(), 1.0);
  const Opinions opinions = read_opinions(
      model, sequences, temperatures, false, progress ? progress : [](int64_t) {});
  const auto table = [&](int64_t begin, int64_t size) {
    return score_table(model, opinions, config::ExitPolicy::confidence, begin, size);
  };
  return place_exits(table(0, map), table(map, count - map), options);
}

std::string to_table(const Placement& placement, const PlacementOptions& options) {
  constexpr double kWidth = 40;  // characters for all of the tokens
  std::string text = fmt::format(
      "{:>6}  {:>9}  {:>8}  {:>12}  share of tokens that could leave there with {:.0f} % like the final "
      "layer's\n",
      "layer", "agreement", "leaving", "layers saved", 100 * options.agreement);
  for (const Candidate& candidate : placement.candidates) {
    const bool chosen = std::find(placement.layers.begin(), placement.layers.end(), candidate.layer) !=
                        placement.layers.end();
    text += fmt::format("{:>6}  {:>8.1f}%  {:>7.1f}%  {:>12.2f}  {:<40}{}\n", candidate.layer,
                        100 * candidate.agreement, 100 * candidate.leaving, candidate.saved,
                        std::string(static_cast<size_t>(candidate.leaving * kWidth), '#'),
                        chosen ? "  <- chosen" : "");
  }
  std::vector<std::string> names;
  for (const int64_t layer : placement.layers) names.push_back(std::to_string(layer));
  return text + fmt::format(
                    "exits after layers {}: {:.1f} % of the tokens leave, {:.2f} layers a token saved "
                    "(looking at an "
                    "exit costs {:.1f})\n",
                    base::join(names, ", "), 100 * placement.result.outcome.leaving(), placement.saved,
                    options.exit_cost);
}

}  // namespace ee::eval
