// The tiny models of make_golden.py with what transformers computed on them.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/exits/exit_head.h"

namespace ee::test {

inline const std::vector<std::string> kGoldenModels = {"mha",         "gqa_head_dim", "bias",  "tied",
                                                       "rope_linear", "rope_llama3",  "qwen2", "mistral"};
inline const std::vector<std::string> kGoldenExits = {"1 embedding before shared none 1",
                                                      "1 embedding after own none 1",
                                                      "3 embedding after shared own 1",
                                                      "2 norm before own own 1",
                                                      "2 norm after shared shared 1.5",
                                                      "1 mlp after shared own 1",
                                                      "2 mlp after own own 2",
                                                      "1 layer after shared own 1",
                                                      "2 layer before own own 1"};

// "<layer> <kind> <position> <head> <norm> <temperature>".
inline config::ExitSpec golden_spec(const std::string& name) {
  config::ExitSpec spec;
  std::string kind, position, head, norm;
  std::istringstream(name) >> spec.layer >> kind >> position >> head >> norm >> spec.temperature;
  spec.kind = config::parse_exit_kind(kind);
  spec.position = config::parse_exit_position(position);
  spec.head = config::parse_head_kind(head);
  spec.norm = config::parse_norm_kind(norm);
  return spec;
}

struct Golden {
  explicit Golden(const std::string& name)
      : folder(std::filesystem::path(EE_SOURCE_DIR) / "tests/golden" / name),
        values(checkpoint::TensorFiles::open_file(folder / "golden.safetensors")),
        backbone(checkpoint::load_backbone(checkpoint::ModelFolder::open(folder),
                                           {.precision = config::Precision::f32})) {}

  at::Tensor at(const std::string& key) const { return values.alias(key); }

  // The exit called `name`, its own tensors f32 and requiring gradients.
  exits::ExitHead exit(const std::string& name) const {
    exits::ExitHead exit;
    exit.spec = golden_spec(name);
    exits::visit_exit(
        backbone.config, exit, [&](const std::string& key, const auto& shape, at::Tensor& member) {
          member =
              at(name + "/" + key).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).requires_grad_();
          EXPECT_EQ(member.sizes(), at::IntArrayRef(shape.sizes)) << key;
        });
    exits::bind_shared(exit, backbone);
    return exit;
  }

  // What the exit reads in a forward pass over the golden tokens.
  exits::ExitInput input(const config::ExitSpec& spec) const {
    exits::ExitInput found;
    model::run_layers(backbone, at("tokens"), spec.depth(),
                      [&](int64_t depth, const model::LayerTrace& trace) {
                        if (depth == spec.depth()) {
                          found = exits::exit_input(spec, trace);
                        }
                      });
    return found;
  }

  std::filesystem::path folder;
  checkpoint::TensorFiles values;
  model::Backbone backbone;
};

inline float max_difference(const at::Tensor& a, const at::Tensor& b) {
  return a.sub(b).abs().max().item<float>();
}

}  // namespace ee::test
