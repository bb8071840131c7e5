#include "ee/exits/exit_head.h"

#include <fmt/format.h>

#include "ee/base/error.h"

namespace ee::exits {
namespace {

// x [batch, seq, hidden] -> the same.
at::Tensor translate(const config::ExitSpec& spec, const Translator& translator, const at::Tensor& x) {
  const auto cast = [&](const at::Tensor& tensor) { return tensor.to(x.scalar_type()); };
  switch (spec.translator) {
    case config::TranslatorKind::none:
      return x;
    case config::TranslatorKind::full:
      return at::linear(x, cast(translator.full.weight), cast(translator.full.bias));
    case config::TranslatorKind::low_rank:
      return at::linear(at::linear(x, cast(translator.down.weight)), cast(translator.up.weight),
                        cast(translator.up.bias))
          .add(x.mul(cast(translator.scale)));
  }
  EE_CHECK(false, "translator kind {}", static_cast<int>(spec.translator));
}

void visit_translator(const config::ExitSpec& spec, int64_t hidden, const std::string& prefix,
                      Translator& translator, const model::TensorVisitor& visit) {
  if (spec.translator == config::TranslatorKind::full) {
    visit(prefix + "weight", {{hidden, hidden}}, translator.full.weight);
    visit(prefix + "bias", {{hidden}}, translator.full.bias);
  } else if (spec.translator == config::TranslatorKind::low_rank) {
    visit(prefix + "scale", {{hidden}}, translator.scale);
    visit(prefix + "down.weight", {{spec.translator_rank, hidden}}, translator.down.weight);
    visit(prefix + "up.weight", {{hidden, spec.translator_rank}}, translator.up.weight);
    visit(prefix + "up.bias", {{hidden}}, translator.up.bias);
  }
}

}  // namespace

ExitInput exit_input(const config::ExitSpec& spec, const model::LayerTrace& trace) {
  if (spec.kind == config::ExitKind::mlp) {
    return {.hidden = trace.post_attention, .mlp_input = trace.mlp_input};
  }
  return {.hidden = trace.output, .mlp_input = {}};
}

at::Tensor ExitHead::stream(const model::Backbone& backbone, const ExitInput& input,
                            model::LayerCache* cache) const {
  if (spec.kind != config::ExitKind::layer) return input.hidden;
  const model::LayerWeights weights = model::in_dtype(backbone.config, layer, input.hidden.scalar_type());
  return model::decoder_layer(backbone.config, weights, input.hidden, backbone.rope, cache, backbone.ranks)
      .output;
}

at::Tensor ExitHead::unnormalized(const model::Backbone& backbone, const ExitInput& input,
                                  model::LayerCache* cache) const {
  const at::Tensor hidden = translate(spec, translator, stream(backbone, input, cache));
  if (spec.kind != config::ExitKind::mlp) return hidden;
  const model::MlpWeights weights = model::in_dtype(backbone.config, mlp, input.hidden.scalar_type());
  return hidden.add(model::mlp(weights, input.mlp_input, backbone.ranks));
}

at::Tensor ExitHead::forward(const model::Backbone& backbone, const ExitInput& input,
                             model::LayerCache* cache) const {
  const at::Tensor hidden = unnormalized(backbone, input, cache);
  return norm.defined() ? model::rms_norm(hidden, norm.to(hidden.scalar_type()), backbone.config.rms_norm_eps)
                        : hidden;
}

at::Tensor ExitHead::logits(const model::Backbone& backbone, const at::Tensor& exit_hidden) const {
  const at::Tensor own = at::linear(exit_hidden, head.to(exit_hidden.scalar_type())).to(at::kFloat);
  const at::Tensor logits = backbone.ranks.gather_vocabulary(own, backbone.config.vocab_size);
  return spec.temperature == 1.0 ? logits : logits.div(spec.temperature);
}

void visit_exit(const config::ModelConfig& config, ExitHead& exit, const model::TensorVisitor& visit) {
  const std::string prefix = fmt::format("exits.{}.", exit.spec.layer);
  visit_translator(exit.spec, config.hidden_size, prefix + "translator.", exit.translator, visit);
  if (exit.spec.kind == config::ExitKind::mlp) {
    model::visit_mlp(config, prefix + "mlp.", exit.mlp, visit);
  } else if (exit.spec.kind == config::ExitKind::layer) {
    model::visit_layer(config, prefix + "layer.", exit.layer, visit);
  }
  if (exit.spec.norm == config::NormKind::own) {
    visit(prefix + "norm.weight", {{config.hidden_size}}, exit.norm);
  }
  if (exit.spec.head == config::HeadKind::own) {
    visit(prefix + "head.weight", {{config.vocab_size, config.hidden_size}, parallel::Split::vocabulary},
          exit.head);
  }
}

int64_t parameter_count(const config::ModelConfig& config, const config::ExitSpec& spec) {
  ExitHead empty;
  empty.spec = spec;
  int64_t count = 0;
  visit_exit(config, empty, [&](const std::string&, const model::TensorShape& shape, at::Tensor&) {
    int64_t elements = 1;
    for (const int64_t size : shape.sizes) {
      elements *= size;
    }
    count += elements;
  });
  return count;
}

void bind_shared(ExitHead& exit, const model::Backbone& backbone) {
  if (exit.spec.norm == config::NormKind::shared) {
    exit.norm = backbone.final_norm;
  }
  if (exit.spec.head == config::HeadKind::shared) {
    exit.head = backbone.head;
  }
}

}  // namespace ee::exits
