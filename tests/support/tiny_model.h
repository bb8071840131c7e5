// Small random models and exits for tests. Header-only, so that only tests that use it need the model rooms.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "ee/config/exit_spec.h"
#include "ee/config/model_config.h"
#include "ee/exits/exit_head.h"
#include "ee/model/backbone.h"
#include "ee/model/tensor_table.h"

namespace ee::test {

// Six layers with grouped KV heads and an own head; change what a test is about.
inline config::ModelConfig tiny_config() {
  config::ModelConfig config;
  config.model_type = "llama";
  config.vocab_size = 97;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.layers = 6;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.max_positions = 128;
  config.eos_tokens = {2};
  config.dtype = "float32";
  return config;
}

// Normal numbers that depend only on `random`'s seed. Norm weights lie around 1; an output embedding is wide
// enough for confidences all over (0, 1).
inline at::Tensor random_weight(const std::string& name, const std::vector<int64_t>& shape,
                                std::mt19937_64& random) {
  const bool norm = name.ends_with("norm.weight");
  const bool head = name.ends_with("head.weight") || name.ends_with("embed_tokens.weight");
  const double fan_in = static_cast<double>(shape.back());
  std::normal_distribution<float> normal(norm ? 1.f : 0.f,
                                         norm ? 0.1f : (head ? 3.f : 1.f) / std::sqrt(fan_in));
  at::Tensor tensor = at::empty(shape, at::kFloat);
  float* values = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    values[i] = normal(random);
  }
  return tensor;
}

inline model::Backbone tiny_backbone(const config::ModelConfig& config, uint64_t seed = 1,
                                     at::ScalarType dtype = at::kFloat) {
  std::mt19937_64 random(seed);
  model::Backbone backbone;
  backbone.config = config;
  backbone.layers.resize(static_cast<size_t>(config.layers));
  model::visit_backbone(backbone, [&](const std::string& name, const auto& shape, at::Tensor& member) {
    member = random_weight(name, shape, random).to(dtype);
  });
  if (config.tie_embeddings) {
    backbone.head = backbone.embedding;
  }
  backbone.rope = model::Rope(config, at::kCPU);
  return backbone;
}

// An exit whose own tensors are random, as if it had been tuned.
inline exits::ExitHead tiny_exit(const model::Backbone& backbone, const config::ExitSpec& spec,
                                 uint64_t seed = 2) {
  std::mt19937_64 random(seed + 1000 * static_cast<uint64_t>(spec.layer));
  exits::ExitHead exit;
  exit.spec = spec;
  exits::visit_exit(backbone.config, exit,
                    [&](const std::string& name, const auto& shape, at::Tensor& member) {
                      member = random_weight(name, shape, random).to(backbone.embedding.scalar_type());
                    });
  exits::bind_shared(exit, backbone);
  return exit;
}

inline std::vector<exits::ExitHead> tiny_exits(const model::Backbone& backbone,
                                               const std::vector<config::ExitSpec>& specs) {
  std::vector<exits::ExitHead> exits;
  for (const config::ExitSpec& spec : specs) {
    exits.push_back(tiny_exit(backbone, spec));
  }
  return exits;
}

}  // namespace ee::test
