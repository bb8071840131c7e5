#include "pointwise_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "ee/base/error.h"

namespace ee::model::fused {
namespace {

constexpr int64_t kElementsPerTask = 1 << 15;  // fewer are not worth waking a thread

// Calls body(begin, end) on ranges of `rows` rows of `width` elements, on all threads.
template <typename Body>
void for_rows(int64_t rows, int64_t width, const Body& body) {
  at::parallel_for(0, rows, std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, width)), body);
}

// Calls body with a null pointer of the tensor's element type.
template <typename Body>
void with_element_type(const at::Tensor& tensor, const Body& body) {
  if (tensor.scalar_type() == at::kFloat) {
    body(static_cast<float*>(nullptr));
  } else {
    body(static_cast<c10::BFloat16*>(nullptr));
  }
}

template <typename T>
void rotate_head(T* __restrict low, T* __restrict high, const float* __restrict cos,
                 const float* __restrict sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float first = low[i], second = high[i];
    low[i] = static_cast<T>(first * cos[i] - second * sin[i]);
    high[i] = static_cast<T>(second * cos[i] + first * sin[i]);
  }
}

// Many partial sums vectorize, and keep the rounding error of long rows small.
template <typename T>
float sum_of_squares(const T* __restrict x, int64_t size) {
  constexpr int64_t kLanes = 32;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float value = x[i + lane];
      lanes[lane] += value * value;
    }
  }
  float sum = 0;
  for (const float lane : lanes) {
    sum += lane;
  }
  for (; i < size; ++i) {
    const float value = x[i];
    sum += value * value;
  }
  return sum;
}

template <typename T>
void norm_row(const T* __restrict x, const T* __restrict weight, T* __restrict y, int64_t size, double eps) {
  const float mean = sum_of_squares(x, size) / static_cast<float>(size);
  const float scale = 1.0f / std::sqrt(mean + static_cast<float>(eps));
  for (int64_t i = 0; i < size; ++i) {
    const T normed = static_cast<T>(x[i] * scale);  // rounded before the weight, as transformers does
    y[i] = static_cast<T>(static_cast<float>(normed) * static_cast<float>(weight[i]));
  }
}

// e^x to a few units in the last place, written so that compilers vectorize it: 2^n by the exponent bits, the
// rest by a polynomial on [-ln2/2, ln2/2].
inline float fast_exp(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  x = std::min(88.0f, std::max(-87.0f, x));
  const float shifted = x * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  return p * std::bit_cast<float>((exponent + 127) << 23);
}

template <typename T>
void silu_times_row(T* __restrict gate, const T* __restrict up, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const float x = gate[i];
    const T activated = static_cast<T>(x / (1.0f + fast_exp(-x)));
    gate[i] = static_cast<T>(static_cast<float>(activated) * static_cast<float>(up[i]));
  }
}

}  // namespace

bool takes(const at::Tensor& tensor) {
  return tensor.is_cpu() && tensor.is_contiguous() &&
         (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16);
}

void rotate(const at::Tensor& x, const RopeRows& rope) {
  const int64_t seq = x.size(1), heads = x.size(2), head_dim = x.size(3), half = head_dim / 2;
  EE_CHECK(rope.cos.size(0) == seq && rope.cos.is_contiguous() && rope.sin.is_contiguous(),
           "RoPE rows of {} positions", seq);
  const float* cos = rope.cos.const_data_ptr<float>();
  const float* sin = rope.sin.const_data_ptr<float>();
  with_element_type(x, [&]<typename T>(T*) {
    T* data = x.mutable_data_ptr<T>();
    for_rows(x.size(0) * seq, heads * head_dim, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t angles = row % seq * half;
        for (int64_t head = 0; head < heads; ++head) {
          T* low = data + (row * heads + head) * head_dim;
          rotate_head(low, low + half, cos + angles, sin + angles, half);
        }
      }
    });
  });
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  at::Tensor y = at::empty_like(x);
  const int64_t size = x.size(-1);
  with_element_type(x, [&]<typename T>(T*) {
    const T* from = x.const_data_ptr<T>();
    const T* scale = weight.const_data_ptr<T>();
    T* to = y.mutable_data_ptr<T>();
    for_rows(x.numel() / size, size, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        norm_row(from + row * size, scale, to + row * size, size, eps);
      }
    });
  });
  return y;
}

void silu_times(const at::Tensor& gate, const at::Tensor& up) {
  const int64_t size = gate.size(-1);
  with_element_type(gate, [&]<typename T>(T*) {
    T* data = gate.mutable_data_ptr<T>();
    const T* other = up.const_data_ptr<T>();
    for_rows(gate.numel() / size, size, [&](int64_t begin, int64_t end) {
      silu_times_row(data + begin * size, other + begin * size, (end - begin) * size);
    });
  });
}

}  // namespace ee::model::fused
