#include "ee/exits/exit_init.h"

#include <ATen/ops/eye.h>

#include "ee/base/error.h"
#include "ee/model/random_init.h"

namespace ee::exits {
namespace {

at::Generator generator_of(uint64_t seed, const config::ExitSpec& spec) {
  return model::generator_for(seed, static_cast<uint64_t>(spec.layer));
}

// A map that changes nothing. Of a low-rank one only `up` is 0: gradients must find a way in.
void set_identity(ExitHead& exit, const model::Backbone& backbone, uint64_t seed) {
  const int64_t hidden = backbone.config.hidden_size, rank = exit.spec.translator_rank;
  const at::TensorOptions options = backbone.options();
  Translator& translator = exit.translator;
  if (exit.spec.translator == config::TranslatorKind::full) {
    translator.full = {.weight = at::eye(hidden, options), .bias = at::zeros({hidden}, options)};
  } else if (exit.spec.translator == config::TranslatorKind::low_rank) {
    translator.scale = at::ones({hidden}, options);
    at::Generator generator = generator_of(seed, exit.spec);
    translator.down.weight =
        model::random_tensor("down.weight", {rank, hidden}, exit.spec.layer, generator).to(options);
    translator.up = {.weight = at::zeros({hidden, rank}, options), .bias = at::zeros({hidden}, options)};
  }
}

void copy_from_backbone(ExitHead& exit, const model::Backbone& backbone) {
  switch (exit.spec.kind) {
    case config::ExitKind::embedding:
    case config::ExitKind::norm:
    case config::ExitKind::linear:
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
  at::Generator generator = generator_of(seed, exit.spec);
  visit_exit(backbone.config, exit,
             [&](const std::string& name, const std::vector<int64_t>& shape, at::Tensor& member) {
               member = model::random_tensor(name, shape, exit.spec.layer, generator).to(backbone.options());
             });
}

}  // namespace

ExitHead make_exit(const model::Backbone& backbone, const config::ExitSpec& spec, uint64_t seed) {
  ExitHead exit;
  exit.spec = spec;
  if (spec.init == config::InitKind::random) {
    fill_randomly(exit, backbone, seed);
  } else {
    set_identity(exit, backbone, seed);
    copy_from_backbone(exit, backbone);
  }
  bind_shared(exit, backbone);
  if (spec.norm == config::NormKind::none) {
    exit.norm.reset();
  }
  return exit;
}

}  // namespace ee::exits
