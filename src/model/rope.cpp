#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>

#include <algorithm>
#include <mutex>
#include <numbers>

#include "ee/base/error.h"
#include "ee/model/rope.h"
#include "operators.h"

namespace ee::model {
namespace {

// Llama 3.1's scaling: long wavelengths are stretched by `factor`, short ones kept, those between blended.
// The order of the f32 operations is that of transformers, so that the tables are equal bit for bit.
at::Tensor scale_llama3(const at::Tensor& frequencies, const config::RopeConfig& rope) {
  const auto original = static_cast<double>(rope.original_max_positions);
  const double longest_kept = original / rope.high_freq_factor;
  const double shortest_stretched = original / rope.low_freq_factor;
  const at::Tensor wavelength = frequencies.reciprocal() * (2 * std::numbers::pi);
  const at::Tensor stretched =
      at::where(wavelength > shortest_stretched, frequencies / rope.factor, frequencies);
  const at::Tensor share = (wavelength.reciprocal() * original - rope.low_freq_factor) /
                           (rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor blended = (1 - share) * stretched / rope.factor + share * stretched;
  const at::Tensor between = (wavelength >= longest_kept).logical_and(wavelength <= shortest_stretched);
  return at::where(between, blended, stretched);
}

at::Tensor frequencies_of(const config::ModelConfig& config) {  // [head_dim / 2], f32
  const config::RopeConfig& rope = config.rope;
  const at::Tensor exponents = at::arange(0, config.head_dim, 2, at::kFloat) / config.head_dim;
  const at::Tensor frequencies = at::pow(rope.theta, exponents).reciprocal();
  switch (rope.scaling) {
    case config::RopeConfig::Scaling::none:
      return frequencies;
    case config::RopeConfig::Scaling::linear:
      return frequencies / rope.factor;
    case config::RopeConfig::Scaling::llama3:
      return scale_llama3(frequencies, rope);
  }
  EE_CHECK(false, "rope scaling {}", static_cast<int>(rope.scaling));
}

constexpr int64_t kFirstPositions = 256;  // are computed at once: a table of nearly nothing is not worth it

}  // namespace

class Rope::Table {
 public:
  Table(const config::ModelConfig& config, at::Device device)
      : frequencies_(frequencies_of(config)), positions_(config.max_positions), device_(device) {}

  RopeRows rows(int64_t first, int64_t count) {
    EE_CHECK(first >= 0 && count >= 0 && first + count <= positions_, "positions {}..{}, the model has {}",
             first, first + count - 1, positions_);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (first + count > kept()) {
      grow(first + count);
    }
    return {rows_.cos.narrow(0, first, count), rows_.sin.narrow(0, first, count)};
  }

 private:
  int64_t kept() const { return rows_.cos.defined() ? rows_.cos.size(0) : 0; }

  // Whoever asks may be decoding, and who uses the rows later may record gradients: they are plain tensors.
  // Views that were handed out keep the smaller table alive.
  void grow(int64_t needed) {
    const c10::InferenceMode plain_tensors(false);
    const c10::AutoGradMode no_grad(false);
    const int64_t end = std::min(positions_, std::max({needed, 2 * kept(), kFirstPositions}));
    const at::Tensor angles = at::outer(at::arange(kept(), end, at::kFloat), frequencies_);
    const auto join = [&](at::Tensor& all, const at::Tensor& more) {
      all = all.defined() ? at::cat({all, more.to(device_)}) : more.to(device_);
    };
    join(rows_.sin, at::sin(angles));
    join(rows_.cos, at::cos(angles));
  }

  std::mutex mutex_;
  at::Tensor frequencies_;  // [head_dim / 2], f32
  int64_t positions_;       // of the model
  at::Device device_;
  RopeRows rows_;  // of positions 0 .. kept() - 1
};

Rope::Rope(const config::ModelConfig& config, at::Device device)
    : table_(std::make_shared<Table>(config, device)) {}

RopeRows Rope::rows(int64_t first, int64_t count) const {
  EE_CHECK(table_, "positions of no model");
  return table_->rows(first, count);
}

}  // namespace ee::model
