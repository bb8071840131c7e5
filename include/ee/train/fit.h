// Solves the linear last steps of a run's exits on text, in one forward pass: where training starts from, or
// all there is to do. The regression is exits/exit_fit.h.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ee/data/packing.h"
#include "ee/train/engine.h"

namespace ee::train {

struct ExitFit {
  int64_t layer = 0;
  double strength = 0;     // of the ridge, chosen on held-out tokens
  double unexplained = 0;  // share of the target's variance that is left, on held-out tokens
  double condition = 0;    // of the normal equations
};

struct Fit {
  int64_t tokens = 0;  // that were looked at; one in eight chose the strength
  double seconds = 0;
  std::vector<ExitFit> exits;  // of all stages
};

// UserError: an exit that has no linear last step, text for less than two sequences, nothing to learn in
// those of about `tokens` tokens that are fitted on, or in those that choose the strength.
void check_fit(const std::vector<config::ExitSpec>& specs, const data::BatchSource& source, int64_t tokens);

// The samples of `source`, from its beginning, that fit_exits() looks at.
int64_t fit_samples(const data::BatchSource& source, int64_t tokens);

// By all ranks of a run together, on about `tokens` tokens of `source` (fewer if there are not so many), in
// order from its beginning, `micro_batch` sequences at a time; every eighth sequence is held out. Fills the
// exits of engine.exits() in place; sums over all ranks of a stage go to its first one, which solves and
// tells the others. Each rank gets the result, and waits for it. Memory of that rank: 4 f64 matrices
// [features, features] an exit. Nothing, and exits as before, when `stop` answered true. What check_fit()
// refuses must not come here.
std::optional<Fit> fit_exits(Engine& engine, const std::vector<config::ExitSpec>& specs,
                             const data::BatchSource& source, int64_t tokens, int64_t micro_batch,
                             const std::function<bool()>& stop);

std::string to_table(const Fit& fit);

}  // namespace ee::train
