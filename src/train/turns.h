// Whose turn it is to be trained: HiFT (arXiv 2401.15207). The embedding, the layers and the head are `units`
// 0, 1..layers and layers + 1, divided into consecutive groups; an exit belongs to the unit it listens
// behind. Pure. Without groups every step trains everything.
#pragma once

#include <cstdint>
#include <vector>

#include "ee/config/tune_options.h"

namespace ee::train {

struct UnitRange {
  int64_t first = 0, last = 0;  // inclusive
  bool contains(int64_t unit) const { return unit >= first && unit <= last; }
  bool operator==(const UnitRange&) const = default;
};

class Turns {
 public:
  Turns(const config::HiftOptions& options, int64_t layers, int64_t seed);

  static int64_t units(int64_t layers) { return layers + 2; }

  // Steps count from 0. Each of the groups has one turn a cycle, in an order that stays.
  UnitRange active(int64_t step) const { return groups_[static_cast<size_t>(step % count())]; }
  int64_t cycle(int64_t step) const { return step / count(); }
  bool same_turn(int64_t a, int64_t b) const { return (a - b) % count() == 0; }
  // The step that the learning rate is of: it moves on when all groups had their turn (section 3.2, delayed
  // update).
  int64_t rate_step(int64_t step) const { return step - step % count(); }

 private:
  int64_t count() const { return static_cast<int64_t>(groups_.size()); }

  std::vector<UnitRange> groups_;  // in the order of their turns
};

}  // namespace ee::train
