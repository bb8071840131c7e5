#include "ee/train/cost.h"

#include <algorithm>

#include "ee/base/text.h"
#include "ee/exits/exit_head.h"
#include "ee/kernels/linear_cross_entropy.h"
#include "ee/model/tensor_table.h"

namespace ee::train {

namespace {

constexpr double kFloatBytes = 4;

double elements(const model::TensorEntry& entry) {
  double count = 1;
  for (const int64_t size : entry.shape) count *= static_cast<double>(size);
  return count;
}

// Multiply-adds count as two. Matrices only: norms and biases are lost in the rounding.
struct Flops {
  const config::ModelConfig& model;
  double sequence_length;

  double mlp() const { return 2.0 * 3.0 * static_cast<double>(model.hidden_size * model.intermediate_size); }
  double attention() const {
    const auto q = static_cast<double>(model.heads * model.head_dim);
    const auto kv = static_cast<double>(model.kv_heads * model.head_dim);
    const double projections = 2.0 * static_cast<double>(model.hidden_size) * (2 * q + 2 * kv);
    return projections + 2.0 * q * sequence_length;  // each row sees half of the sequence, scores and mixing
  }
  double head() const { return 2.0 * static_cast<double>(model.hidden_size * model.vocab_size); }

  // Forward and backward of one exit. Nothing flows into its input, and the loss's filtered backward pass is
  // a sparse gather that does not count.
  double exit(const config::ExitSpec& spec, double gradient_filter) const {
    double branch = 0;
    if (spec.kind == config::ExitKind::mlp) branch = mlp() * (1 + 1 + 1.0 / 3);
    if (spec.kind == config::ExitKind::layer) branch = (attention() + mlp()) * 3;
    const double backward = gradient_filter > 0 ? 0 : spec.head == config::HeadKind::own ? 3 : 2;
    return branch + head() * (1 + backward);
  }
};

// What is alive at once: one layer's intermediates, or one exit's saved for its backward pass, and the chunk
// of logits. An estimate: allocators and libraries add to it.
double estimate_activations(const Job& job, double element_bytes) {
  const auto& model = job.folder.config();
  const auto tokens = static_cast<double>(job.options.batch.micro_batch * job.options.batch.sequence_length);
  const auto hidden = static_cast<double>(model.hidden_size),
             inner = static_cast<double>(model.intermediate_size);
  const double layer = tokens * element_bytes * (8 * hidden + 3 * inner);
  double exit = 0;
  for (const auto& spec : job.exits) {
    const double saved = spec.kind == config::ExitKind::layer ? 14 * hidden + 5 * inner
                         : spec.kind == config::ExitKind::mlp ? 6 * hidden + 5 * inner
                                                              : 4 * hidden;
    exit = std::max(exit, tokens * element_bytes * saved);
  }
  const auto chunk =
      static_cast<double>(std::min(kernels::LinearCrossEntropyOptions{}.vocab_chunk, model.vocab_size));
  return tokens * element_bytes * 4 * hidden + std::max(layer, exit + tokens * chunk * 2 * kFloatBytes);
}

}  // namespace

Cost estimate_cost(const Job& job) {
  const auto& model = job.folder.config();
  Cost cost;
  const auto dtype = checkpoint::compute_dtype(job.folder, job.options.model.precision, at::kCPU);
  const auto element_bytes = static_cast<double>(c10::elementSize(dtype));
  for (const auto& entry : model::tensor_table(model))
    if (entry.layer <= job.loaded_layers()) cost.backbone_parameters += static_cast<int64_t>(elements(entry));

  double trained = 0;
  const Flops flops{model, static_cast<double>(job.options.batch.sequence_length)};
  cost.flops_per_token = static_cast<double>(job.depth()) * (flops.attention() + flops.mlp());
  for (const auto& spec : job.exits) {
    cost.exit_parameters.push_back(exits::parameter_count(model, spec));
    trained += static_cast<double>(cost.exit_parameters.back());
    cost.flops_per_token += flops.exit(spec, job.options.exits.gradient_filter);
  }
  cost.backbone_bytes = static_cast<double>(cost.backbone_parameters) * element_bytes;
  cost.master_bytes = cost.gradient_bytes = trained * kFloatBytes;
  cost.moment_bytes = 2 * trained * kFloatBytes;
  cost.activation_bytes = estimate_activations(job, element_bytes);
  return cost;
}

std::string describe(const Job& job, const Cost& cost) {
  using base::format_bytes, base::format_count;
  const auto count = [](int64_t value) { return format_count(static_cast<double>(value)); };
  const auto& options = job.options;
  std::string text = fmt::format("model     {}: {} with {} layers, {} loaded, training runs {}\n",
                                 job.folder.path().string(), job.folder.config().model_type,
                                 job.folder.config().layers, job.loaded_layers(), job.depth());
  text += fmt::format("text      {} documents, {} tokens; {} sequences of {} to train on",
                      job.corpus->documents(), count(job.corpus->tokens()), job.training.sequences().size(),
                      options.batch.sequence_length);
  text += job.validation ? fmt::format(", {} held out\n", job.validation->sequences().size())
                         : std::string("; nothing held out, so no evaluation\n");
  for (size_t i = 0; i < job.exits.size(); ++i) {
    const auto& spec = job.exits[i];
    text += fmt::format(
        "exit      {} layer {}: {}, norm {}, head {}, weight {}, temperature {}; {} own parameters, {} "
        "trained\n",
        to_string(spec.position), spec.layer, to_string(spec.kind), to_string(spec.norm),
        to_string(spec.head), spec.weight, spec.temperature, count(cost.exit_parameters[i]),
        count(cost.exit_parameters[i]));
  }
  text += fmt::format(
      "memory    {} = backbone {} + masters {} + moments {} + gradients {} + activations about {}\n",
      format_bytes(cost.total_bytes()), format_bytes(cost.backbone_bytes), format_bytes(cost.master_bytes),
      format_bytes(cost.moment_bytes), format_bytes(cost.gradient_bytes),
      format_bytes(cost.activation_bytes));
  const double tokens = static_cast<double>(job.steps * job.tokens_per_step());
  text += fmt::format(
      "work      {} steps of {} x {} tokens = {} tokens, {:.2f} epochs; {}FLOP a token, {}FLOP in all\n",
      job.steps, options.batch.global_batch, options.batch.sequence_length, format_count(tokens),
      static_cast<double>(job.steps * options.batch.global_batch) /
          static_cast<double>(job.training.sequences().size()),
      format_count(cost.flops_per_token), format_count(cost.flops_per_token * tokens));
  return text + fmt::format("output    {}; checkpoints {}; logs {}\n", options.output,
                            options.checkpoint.directory, options.logging.directory);
}

}  // namespace ee::train
