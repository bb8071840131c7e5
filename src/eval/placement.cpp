#include "ee/eval/placement.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "agreement.h"
#include "ee/base/error.h"
#include "ee/base/text.h"

namespace ee::eval {

namespace {

using Exits = std::vector<size_t>;  // indices of candidates, ascending

struct Choice {
  Exits exits;
  LevelResult result = {};
  double saved = 0.0;  // layers a token
};

ScoreTable only(const ScoreTable& table, const Exits& exits) {
  ScoreTable part{.tokens = table.tokens};
  for (const size_t i : exits) part.exits.push_back(table.exits[i]);
  return part;
}

class Search {
 public:
  Search(const ScoreTable& map, const ScoreTable& test, const PlacementOptions& options)
      : map_(map), test_(test), options_(options) {}

  Choice choice(const Exits& exits) const {
    Choice choice{.exits = exits};
    choice.result = find_level(only(map_, exits), only(test_, exits), options_.agreement, options_.confidence,
                               config::ExitPolicy::confidence);
    const Outcome& outcome = choice.result.outcome;
    for (size_t i = 0; i < exits.size(); ++i)
      choice.saved += outcome.leave[i] * static_cast<double>(options_.layers - test_.exits[exits[i]].depth);
    choice.saved -= options_.exit_cost * outcome.heads;
    return choice;
  }

  // The exits with whichever other one saves most.
  Choice best_with(const Exits& exits) const {
    std::optional<Choice> best;
    for (size_t i = 0; i < test_.exits.size(); ++i) {
      if (std::ranges::find(exits, i) != exits.end()) continue;
      Exits next = exits;
      next.insert(std::ranges::upper_bound(next, i), i);
      Choice found = choice(next);
      if (!best || found.saved > best->saved) best = std::move(found);
    }
    return *best;
  }

  // One for another, whichever exchange gains most, as long as one does.
  Choice exchange(Choice chosen) const {
    for (;;) {
      Choice best = chosen;
      for (const size_t out : chosen.exits) {
        Exits others = chosen.exits;
        std::erase(others, out);
        Choice next = best_with(others);
        if (next.saved > best.saved) best = std::move(next);
      }
      if (best.saved <= chosen.saved) return chosen;
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
    const Choice alone = search.choice({i});
    placement.candidates.push_back({.layer = exit.layer,
                                    .agreement = agreeing / static_cast<double>(exit.agree.size()),
                                    .leaving = alone.result.outcome.leaving(),
                                    .saved = alone.saved});
  }
  Choice chosen{.exits = {}};
  for (int64_t i = 0; i < options.count; ++i) chosen = search.best_with(chosen.exits);
  chosen = search.exchange(std::move(chosen));
  for (const size_t i : chosen.exits) placement.layers.push_back(test.exits[i].layer);
  placement.result = std::move(chosen.result);
  placement.saved = chosen.saved;
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
  text += fmt::format(
      "exits after layers {}: {:.1f} % of the tokens leave, {:.2f} layers a token saved "
      "(looking at an "
      "exit costs {:.1f})\n",
      base::join(names, ", "), 100 * placement.result.outcome.leaving(), placement.saved, options.exit_cost);
  if (placement.saved <= 0)
    text +=
        "no choice saves anything here: looking costs more than leaving brings. Fewer exits, a lower "
        "--agreement, exits tuned afterwards, or gates (ee-tune calibrate --gate) may\n";
  return text;
}

}  // namespace ee::eval
