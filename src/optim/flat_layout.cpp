#include "ee/optim/flat_layout.h"

#include <algorithm>

namespace ee::optim {

namespace {

int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

}  // namespace

FlatLayout::FlatLayout(std::span<const int64_t> sizes, int64_t ranks, int64_t bucket) : ranks_(ranks) {
  int64_t end = 0;
  for (const int64_t size : sizes) {
    parameters_.push_back({end, end + size});
    end = round_up(end + size, kAlignment);
  }
  const int64_t unit = ranks * kAlignment;
  const int64_t total = round_up(end, unit);
  const int64_t length = ranks == 1 ? total : std::max(bucket / unit * unit, unit);
  for (int64_t begin = 0; begin < total; begin += length)
    buckets_.push_back({begin, std::min(begin + length, total)});
}

Range FlatLayout::share(Range bucket, int64_t rank) const {
  const int64_t length = bucket.size() / ranks_;
  return {bucket.begin + rank * length, bucket.begin + (rank + 1) * length};
}

std::vector<Part> FlatLayout::parts(Range range) const {
  std::vector<Part> parts;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Range part = {std::max(parameters_[i].begin, range.begin), std::min(parameters_[i].end, range.end)};
    if (part.size() > 0) parts.push_back({i, part});
  }
  return parts;
}

}  // namespace ee::optim
