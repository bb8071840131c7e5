#include "gguf_rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ee/base/error.h"

namespace ee::checkpoint {
using base::UserError;
using config::RopeConfig;
using format::GgufFile;

namespace {

// What llama.cpp's converter divides each frequency by for a Llama 3.1 model.
double llama3_factor(const RopeConfig& rope, int64_t head_dim, int64_t index) {
  const double exponent = 2.0 * static_cast<double>(index) / static_cast<double>(head_dim);
  const double wavelength = 2.0 * std::numbers::pi * std::pow(rope.theta, exponent);
  const auto original = static_cast<double>(rope.original_max_positions);
  if (wavelength < original / rope.high_freq_factor) return 1.0;
  if (wavelength > original / rope.low_freq_factor) return rope.factor;
  const double smooth =
      (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return 1.0 / ((1.0 - smooth) / rope.factor + smooth);
}

// A GGUF file has the factors themselves. All Llama 3.x models share three of the four numbers they come
// from; the fourth is the largest factor. Anything else is refused.
void read_rope_factors(const GgufFile& file, int64_t head_dim, RopeConfig& rope) {
  const format::GgufTensor& tensor = file.at(kRopeFactors);
  if (tensor.elements() != head_dim / 2)
    throw UserError("tensor {} in {} has {} elements, expected {}", kRopeFactors, file.path().string(),
                    tensor.elements(), head_dim / 2);
  format::check_dequantizable(tensor, file.path_of(tensor));
  std::vector<float> factors(static_cast<size_t>(tensor.elements()));
  format::dequantize(tensor, factors);

  rope.scaling = RopeConfig::Scaling::llama3;
  rope.factor = *std::max_element(factors.begin(), factors.end());
  rope.low_freq_factor = 1.0;
  rope.high_freq_factor = 4.0;
  rope.original_max_positions = 8192;
  for (size_t i = 0; i < factors.size(); ++i) {
    const double expected = llama3_factor(rope, head_dim, static_cast<int64_t>(i));
    if (!(std::abs(factors[i] - expected) <= 1e-3 * expected))
      throw UserError(
          "{}: {}[{}] is {}, but Llama 3's scaling with factor {} implies {}; convert from the original "
          "Hugging Face folder instead",
          file.path().string(), kRopeFactors, i, factors[i], rope.factor, expected);
  }
}

// 1: none.
double linear_factor(const LlamaMetadata& llama, const std::string& type) {
  if (type == "none") return 1.0;
  if (type != "linear")
    llama.refuse("rope.scaling.type", fmt::format("\"{}\" is not supported; supported: none, linear", type));
  const auto factor = llama.find_number_or_zero("rope.scaling.factor");
  const double value = factor ? *factor : llama.find_number_or_zero("rope.scale_linear").value_or(0.0);
  return value == 0.0 ? 1.0 : value;
}

}  // namespace

RopeConfig gguf_rope_config(const GgufFile& file, const LlamaMetadata& llama, int64_t head_dim) {
  RopeConfig rope;
  rope.theta = llama.find_number("rope.freq_base").value_or(10000.0);
  if (const double factor = llama.find_number("rope.scaling.attn_factor").value_or(1.0); factor != 1.0)
    llama.refuse("rope.scaling.attn_factor",
                 fmt::format("is {}, which is not supported; expected 1", factor));
  const std::string type = llama.find_text("rope.scaling.type").value_or("linear");
  rope.factor = linear_factor(llama, type);
  if (rope.factor != 1.0) rope.scaling = RopeConfig::Scaling::linear;
  if (!file.tensors().contains(kRopeFactors)) return rope;
  if (rope.scaling != RopeConfig::Scaling::none)
    llama.refuse("rope.scaling.factor",
                 fmt::format("{} and {} contradict each other", rope.factor, kRopeFactors));
  read_rope_factors(file, head_dim, rope);
  return rope;
}

}  // namespace ee::checkpoint
