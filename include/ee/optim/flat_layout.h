// Where the parameters of one exit lie in its flat buffers, and which elements are whose share.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ee::optim {

struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

// Elements of one parameter.
struct Part {
  size_t parameter = 0;
  Range flat;  // in the buffer
  bool operator==(const Part&) const = default;
};

// One parameter after the other, then padding. The buffer is cut into buckets, and each bucket into equal
// shares of the data-parallel ranks. All borders are multiples of kAlignment: of a cache line, and of the
// vectors that elementwise kernels work in, so that a cut changes no bits.
class FlatLayout {
 public:
  static constexpr int64_t kAlignment = 16;

  // Parameters of `sizes` elements. Buckets have about `bucket` elements; a single rank has only one.
  FlatLayout(std::span<const int64_t> sizes, int64_t ranks, int64_t bucket);

  int64_t size() const { return buckets_.empty() ? 0 : buckets_.back().end; }
  int64_t ranks() const { return ranks_; }
  const std::vector<Range>& parameters() const { return parameters_; }
  const std::vector<Range>& buckets() const { return buckets_; }
  Range share(Range bucket, int64_t rank) const;
  std::vector<Part> parts(Range range) const;  // in order, without the padding

 private:
  int64_t ranks_;
  std::vector<Range> parameters_, buckets_;
};

}  // namespace ee::optim
