// Where exits pay: which layers of a model whose every layer has one save the most.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ee/eval/evaluate.h"
#include "ee/eval/quality.h"
#include "ee/infer/model.h"

namespace ee::eval {

struct PlacementOptions {
  int64_t count = 3;         // exits to place
  int64_t layers = 0;        // of the model
  double exit_cost = 0.0;    // of looking at one exit, in layers
  double agreement = 0.95;   // wanted share of tokens that are the final layer's
  double confidence = 0.95;  // of that share, see find_level()
};

struct Candidate {
  int64_t layer = 0;
  double agreement = 0.0;  // share of all tokens whose most probable token is the final layer's
  double leaving =
      0.0;             // share of the tokens that leaves there at the wanted agreement, were it the only exit
  double saved = 0.0;  // layers a token, likewise
};

struct Placement {
  std::vector<Candidate> candidates;
  std::vector<int64_t> layers;  // chosen, ascending
  LevelResult result;           // with these exits
  double saved = 0.0;           // layers a token: those that leaving skips less what looking at exits costs
};

// Adds the layer that saves most until there are `count`, then exchanges one for another as long as that
// gains. Levels as find_level() finds them on `map` and `test`, which have the same exits, one a candidate
// layer. UserError: more exits wanted than candidates.
Placement place_exits(const ScoreTable& map, const ScoreTable& test, const PlacementOptions& options);

// Of a model with an exit at every candidate layer, on sequences drawn at random from a text.
Placement place_exits(const infer::Model& model, const Sequences& sequences, const PlacementOptions& options,
                      const std::function<void(int64_t done)>& progress = {});

std::string to_table(const Placement& placement, const PlacementOptions& options);
std::string to_svg(const Placement& placement, const PlacementOptions& options);

}  // namespace ee::eval
