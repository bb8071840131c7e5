// The inner loops of the fused loss: a tile of logits held in registers, its running softmax, and sparse row
// sums. Eight-lane vectors of the compiler, so that one source serves AVX2 and NEON.
//
// Lanes are tokens. Hidden states are packed once into panels [hidden, 16 tokens]; rows of the embedding are
// read in place, one scalar broadcast at a time. A tile therefore needs no copy of the weight, and its
// softmax has no sum across lanes. The tile is logits transposed: [vocabulary rows, 16 tokens].
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace ee::kernels::tile {

using Floats = float __attribute__((vector_size(32)));
using Ints = int32_t __attribute__((vector_size(32)));

inline constexpr int64_t kLanes = 8;
inline constexpr int64_t kPanelTokens = 2 * kLanes;
inline constexpr int64_t kTileRows = 6;  // 6 x 2 accumulators + 2 operands + 2 broadcasts = 16 registers

inline Floats splat(float value) { return Floats{} + value; }
inline Ints splat(int32_t value) { return Ints{} + value; }
inline Floats load(const float* from) {
  Floats value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
inline void store(float* to, Floats value) { std::memcpy(to, &value, sizeof(value)); }
inline bool any(Ints mask) {
  using Longs = int64_t __attribute__((vector_size(32)));
  const Longs m = reinterpret_cast<Longs>(mask);
  return ((m[0] | m[1]) | (m[2] | m[3])) != 0;
}

// 2^x for x <= 0 to 1e-7 relative; below -126 it stays at 2^-126; NaN stays NaN.
inline Floats exp2(Floats x) {
  const Floats low = splat(-126.0f),
               round = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  x = x < low ? low : x;
  const Floats shifted = x + round;
  const Floats f = x - (shifted - round);
  Floats p = splat(0.00015337577f);
  p = p * f + 0.0013399861f;
  p = p * f + 0.009618520f;
  p = p * f + 0.05550329f;
  p = p * f + 0.24022647f;
  p = p * f + 0.6931472f;
  p = p * f + 1.0f;
  return reinterpret_cast<Floats>(reinterpret_cast<Ints>(p) + (reinterpret_cast<Ints>(shifted) << 23));
}

// A lower bound of log2(x), at most 0.087 too small: the logarithm is above the chord between powers of two.
inline Floats log2_below(Floats x) {
  return __builtin_convertvector(reinterpret_cast<Ints>(x), Floats) * 0x1p-23f - 127.0001f;
}

// out [kTileRows, 16] = rows [kTileRows, hidden] x panel [hidden, 16].
inline void multiply(const float* rows, const float* panel, int64_t hidden, float* out) {
  Floats sum[kTileRows][2] = {};
  for (int64_t k = 0; k < hidden; ++k) {
    const Floats b0 = load(panel + k * kPanelTokens), b1 = load(panel + k * kPanelTokens + kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const Floats a = splat(rows[r * hidden + k]);
      sum[r][0] += a * b0;
      sum[r][1] += a * b1;
    }
  }
  for (int r = 0; r < kTileRows; ++r) {
    store(out + r * kPanelTokens, sum[r][0]);
    store(out + r * kPanelTokens + kLanes, sum[r][1]);
  }
}

// Running softmax of the 16 tokens of a panel over the vocabulary rows seen so far.
struct alignas(64) PanelState {
  float max[kPanelTokens];           // largest logit, not yet divided by the temperature
  float sum[kPanelTokens];           // of 2^(scale * (logit - max))
  float target_logit[kPanelTokens];  // once the target's row was seen
  int32_t argmax[kPanelTokens];
  int32_t target[kPanelTokens];
};

// Adds logits [count, 16], rows first .. first+count of the vocabulary, to 8 tokens of the state (half: 0 or
// 1). scale = log2(e) / temperature.
inline void update(const float* logits, int32_t first, int count, float scale, int half, PanelState& state) {
  logits += half * kLanes;
  float* max_at = state.max + half * kLanes;
  float* sum_at = state.sum + half * kLanes;
  const Floats old_max = load(max_at);
  Floats max = old_max;
  for (int r = 0; r < count; ++r) {
    const Floats x = load(logits + r * kPanelTokens);
    max = x > max ? x : max;
  }
  Ints argmax, target;
  std::memcpy(&argmax, state.argmax + half * kLanes, sizeof(argmax));
  std::memcpy(&target, state.target + half * kLanes, sizeof(target));
  if (any(max > old_max)) {  // rare once the first rows have passed
    for (int r = count - 1; r >= 0; --r) {
      const Ints here = (load(logits + r * kPanelTokens) == max) & (max > old_max);
      argmax = here ? splat(first + r) : argmax;
    }
    std::memcpy(state.argmax + half * kLanes, &argmax, sizeof(argmax));
    store(max_at, max);
  }
  const Ints row = target - first;
  if (any((row >= 0) & (row < count))) {
    for (int lane = 0; lane < kLanes; ++lane)
      if (row[lane] >= 0 && row[lane] < count)
        state.target_logit[half * kLanes + lane] = logits[row[lane] * kPanelTokens + lane];
  }
  Floats sum{};  // apart from the old sum, whose last bit may be larger than a whole entry of the tail
  for (int r = 0; r < count; ++r) sum += exp2((load(logits + r * kPanelTokens) - max) * scale);
  store(sum_at, load(sum_at) * exp2((old_max - max) * scale) + sum);
}

// Calls found(lane, row, logit) for the logits of 8 tokens that may still have a probability of at least
// 2^log2_filter: the sum so far is a lower bound of the final one.
template <typename Found>
inline void collect(const float* logits, int count, float scale, float log2_filter, int half,
                    const PanelState& state, Found&& found) {
  logits += half * kLanes;
  const Floats max = load(state.max + half * kLanes);
  const Floats least = (log2_below(load(state.sum + half * kLanes)) + log2_filter) / scale;
  for (int r = 0; r < count; ++r) {
    const Ints passes = load(logits + r * kPanelTokens) - max >= least;
    if (!any(passes)) continue;
    for (int lane = 0; lane < kLanes; ++lane)
      if (passes[lane]) found(half * kLanes + lane, r, logits[r * kPanelTokens + lane]);
  }
}

struct Entry {
  int32_t index;
  float value;
};

// out [width] += sum over entries of value * table[index - first]; table rows have `width` floats.
inline void add_rows(float* out, const float* table, int64_t width, int32_t first, const Entry* entries,
                     int64_t count) {
  constexpr int64_t kVectors = 8, kStep = kVectors * kLanes;
  int64_t k = 0;
  for (; k + kStep <= width; k += kStep) {
    Floats sum[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[v] = load(out + k + v * kLanes);
    for (int64_t e = 0; e < count; ++e) {
      const float* row = table + (entries[e].index - first) * width + k;
      const Floats value = splat(entries[e].value);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[v] += value * load(row + v * kLanes);
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(out + k + v * kLanes, sum[v]);
  }
  for (; k < width; ++k)
    for (int64_t e = 0; e < count; ++e)
      out[k] += entries[e].value * table[(entries[e].index - first) * width + k];
}

}  // namespace ee::kernels::tile

#if defined(__x86_64__)
#pragma GCC pop_options
#endif
