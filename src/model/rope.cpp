#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>

#include <numbers>

#include "ee/model/backbone.h"
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

}  // namespace

RopeTable::RopeTable(const config::ModelConfig& config, int64_t positions, at::Device device) {
  const config::RopeConfig& rope = config.rope;
  const at::Tensor exponents = at::arange(0, config.head_dim, 2, at::kFloat) / config.head_dim;
  at::Tensor frequencies = at::pow(rope.theta, exponents).reciprocal();  // [head_dim / 2]
  switch (rope.scaling) {
    case config::RopeConfig::Scaling::none:
      break;
    case config::RopeConfig::Scaling::linear:
      frequencies = frequencies / rope.factor;
      break;
    case config::RopeConfig::Scaling::llama3:
      frequencies = scale_llama3(frequencies, rope);
      break;
  }
  const at::Tensor half = at::outer(at::arange(positions, at::kFloat), frequencies);
  const at::Tensor angles = at::cat({half, half}, -1);  // [positions, head_dim]
  cos = at::cos(angles).to(device);
  sin = at::sin(angles).to(device);
}

}  // namespace ee::model
