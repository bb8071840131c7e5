#include "ee/exits/exit_init.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randn.h>

#include <cmath>

namespace ee::exits {
namespace {

constexpr double kRandomDeviation = 0.02;

void copy_from_backbone(ExitHead& exit, const model::Backbone& backbone) {
  switch (exit.spec.kind) {
    case config::ExitKind::embedding:
    case config::ExitKind::norm:
      break;
    case config::ExitKind::mlp:
      exit.mlp = backbone.layer(exit.spec.layer).mlp;
      break;
    case config::ExitKind::layer:
      EE_CHECK(static_cast<int64_t>(backbone.layers.size()) == backbone.config.layers,
               "an exit of kind layer copies the last of {} layers, but {} are loaded",
               backbone.config.layers, backbone.layers.size());
      exit.layer = backbone.layers.back();
      break;
  }
  exit.norm = backbone.final_norm;
  exit.head = backbone.head;
  model::TensorVisitor clone = [](const std::string&, const model::TensorShape&, at::Tensor& member) {
    member = member.clone();
  };
  visit_exit(backbone.config, exit, clone);
}

void fill_randomly(ExitHead& exit, const model::Backbone& backbone, uint64_t seed) {
  constexpr uint64_t kSeedStride = 1000003;  // keeps (seed, layer) pairs apart
  at::Generator generator =
      at::detail::createCPUGenerator(seed * kSeedStride + static_cast<uint64_t>(exit.spec.layer));
  const double output_scale = 1.0 / std::sqrt(2.0 * static_cast<double>(exit.spec.layer));
  const auto ends_with = [](const std::string& name, const char* end) { return name.ends_with(end); };
  visit_exit(backbone.config, exit,
             [&](const std::string& name, const std::vector<int64_t>& shape, at::Tensor& member) {
               if (ends_with(name, ".bias")) {
                 member = at::zeros(shape, backbone.options());
               } else if (shape.size() == 1) {
                 member = at::ones(shape, backbone.options());
               } else {
                 const bool output = ends_with(name, "o_proj.weight") || ends_with(name, "down_proj.weight");
                 member = at::randn(shape, generator, at::kFloat)
                              .mul_(kRandomDeviation * (output ? output_scale : 1.0))
                              .to(backbone.options());
               }
             });
}

}  // namespace

ExitHead make_exit(const model::Backbone& backbone, const config::ExitSpec& spec, uint64_t seed) {
  ExitHead exit;
  exit.spec = spec;
  if (spec.init == config::InitKind::copy) {
    copy_from_backbone(exit, backbone);
  } else {
    fill_randomly(exit, backbone, seed);
  }
  bind_shared(exit, backbone);
  if (spec.norm == config::NormKind::none) {
    exit.norm.reset();
  }
  return exit;
}

}  // namespace ee::exits
