#include "ee/train/cost.h"

#include <algorithm>
#include <map>

#include "backbone_groups.h"
#include "ee/base/text.h"
#include "ee/exits/exit_fit.h"
#include "ee/kernels/linear_cross_entropy.h"
#include "ee/model/tensor_table.h"
#include "exit_inputs.h"
#include "process.h"
#include "turns.h"

namespace ee::train {

namespace {

constexpr double kFloatBytes = 4;
// What libraries and allocator take besides when computing begins, on a CPU; measured.
constexpr double kWorkingBytes = 32 << 20;

// What a tensor rank holds of a tensor.
double own_elements(const Job& job, const model::TensorShape& shape) {
  const auto slice = parallel::slice_of(job.folder.config(), shape.split, shape.sizes, 0, job.grid.tensor);
  double count = static_cast<double>(slice.length);
  for (size_t axis = 0; axis < shape.sizes.size(); ++axis)
    if (static_cast<int64_t>(axis) != slice.axis) count *= static_cast<double>(shape.sizes[axis]);
  return count;
}

double backbone_elements(const Job& job, const Stage& stage) {
  const auto& config = job.folder.config();
  model::Backbone part;
  part.config = config;
  part.first_layer = stage.first_layer;
  part.layers.resize(static_cast<size_t>(stage.loaded_layers - stage.first_layer + 1));
  double count = 0;
  model::visit_backbone(part,
                        [&](const std::string&, const model::TensorShape& shape, at::Tensor&) {
                          count += own_elements(job, shape);
                        },
                        {.embedding = stage.is_first, .head = stage.needs_head});
  return count;
}

double elements(const Job& job, const config::ExitSpec& spec) {
  double count = 0;
  exits::ExitHead exit;
  exit.spec = spec;
  exits::visit_exit(job.folder.config(), exit,
                    [&](const std::string&, const model::TensorShape& shape, at::Tensor&) {
                      count += own_elements(job, shape);
                    });
  return count;
}

// What is trained on a stage, by the unit of its turn (turns.h).
std::map<int64_t, double> trained_elements(const Job& job, const Stage& stage) {
  std::map<int64_t, double> units;
  for (const auto& spec : job.exits_of(stage)) units[spec.depth()] += elements(job, spec);
  if (job.options.train.backbone())
    for (const auto& group : backbone_groups(job.folder.config(), stage))
      for (const auto& tensor : group.tensors) units[group.unit] += own_elements(job, tensor.shape);
  return units;
}

// Of the turn that trains most: all, unless groups take turns.
double largest_turn(const Job& job, const std::map<int64_t, double>& units) {
  const int64_t layers = job.folder.config().layers;
  const Turns turns(job.options.train.hift, layers, job.options.seed);
  double largest = 0;
  for (int64_t step = 0; step < std::max<int64_t>(1, job.options.train.hift.groups); ++step) {
    double sum = 0;
    for (const auto& [unit, count] : units)
      if (turns.active(step).contains(unit)) sum += count;
    largest = std::max(largest, sum);
  }
  return largest;
}

// What mode all keeps besides: each recorded layer's input, or all that its graph holds, and one layer's
// graph; all micro-batches of a step where stages wait for each other.
double recorded(const Job& job, const Stage& stage, double stream, double layer_graph) {
  if (!job.options.train.backbone()) return 0;
  const auto layers = static_cast<double>(stage.last_layer - stage.first_layer + 1);
  const double batches = stage.count == 1
                             ? 1
                             : static_cast<double>(job.options.batch.global_batch /
                                                   job.options.batch.micro_batch / job.grid.data);
  return batches * layers * (job.options.train.recompute ? stream : layer_graph) + 2 * layer_graph;
}

// What is alive at once: one layer's intermediates, or one exit's saved for its backward pass, and the chunk
// of logits; the inputs of exits that wait until the stream has been handed on. An estimate: allocators and
// libraries add to it.
double activations(const Job& job, const Stage& stage, double element_bytes) {
  const auto& model = job.folder.config();
  const auto tokens = static_cast<double>(job.options.batch.micro_batch * job.options.batch.sequence_length);
  const auto ranks = static_cast<double>(job.grid.tensor);
  const auto hidden = static_cast<double>(model.hidden_size),
             inner = static_cast<double>(model.intermediate_size) / ranks;
  const double layer = tokens * element_bytes * (8 * hidden + 3 * inner);
  double exit = 0;
  for (const auto& spec : job.exits_of(stage)) {
    const double saved = spec.kind == config::ExitKind::layer ? 14 * hidden + 5 * inner
                         : spec.kind == config::ExitKind::mlp ? 6 * hidden + 5 * inner
                                                              : 4 * hidden;
    exit = std::max(exit, tokens * element_bytes * saved);
  }
  // With a teacher exits wait for the last layer: one more micro-batch for each stage behind this one.
  const bool taught = job.options.exits.loss.needs_teacher();
  const double waits = taught ? static_cast<double>(stage.count - stage.index) : stage.is_last ? 0 : 1;
  const double waiting =
      waits * static_cast<double>(2 * stage.exit_count + 2) * tokens * element_bytes * hidden;
  const double attention =
      static_cast<double>((2 * model.heads + 2 * model.kv_heads) * model.head_dim) / ranks;
  const double graph =
      tokens * (element_bytes * (4 * hidden + 2 * attention + 4 * inner) + 2 * kFloatBytes * hidden);
  const auto chunk =
      static_cast<double>(std::min(kernels::LinearCrossEntropyOptions{}.vocab_chunk, model.vocab_size));
  return waiting + recorded(job, stage, tokens * element_bytes * hidden, graph) +
         tokens * element_bytes * 4 * hidden + std::max(layer, exit + tokens * chunk * 2 * kFloatBytes);
}

// The sums of a fit before the first step, and those of one exit again while it is solved.
double fit_sums(const Job& job, const Stage& stage) {
  if (job.options.exits.init != config::ExitStart::fit) return 0;
  const auto& model = job.folder.config();
  double all = 0, largest = 0;
  for (const auto& spec : job.exits_of(stage)) {
    const auto features = static_cast<double>(exits::fit_features(model, spec));
    const double sums = features * (features + static_cast<double>(model.hidden_size)) * sizeof(double);
    all += 2 * sums;
    largest = std::max(largest, 4 * sums);
  }
  return all + largest;
}

RankMemory stage_memory(const Job& job, const Stage& stage) {
  const double element_bytes = job.element_bytes();
  const auto units = trained_elements(job, stage);
  double trained = 0;
  for (const auto& [unit, count] : units) trained += count * kFloatBytes;
  // The backbone's masters are the backbone, unless it computes in another dtype.
  const bool copied = !job.options.train.backbone() || element_bytes != kFloatBytes;
  const double shares = job.options.parallel.shard_optimizer ? static_cast<double>(job.grid.data) : 1.0;
  return {.backbone = copied ? backbone_elements(job, stage) * element_bytes : 0,
          .masters = trained,
          .moments = 2 * trained / shares,
          .gradients = largest_turn(job, units) * kFloatBytes,
          .activations = std::max(activations(job, stage, element_bytes), fit_sums(job, stage)),
          .program = job.device == "cpu" ? static_cast<double>(resident_memory()) + kWorkingBytes : 0};
}

std::string memory_line(const RankMemory& memory) {
  using base::format_bytes;
  return fmt::format("{} = backbone {} + masters {} + moments {} + gradients {} + activations about {}{}",
                     format_bytes(memory.total()), format_bytes(memory.backbone),
                     format_bytes(memory.masters), format_bytes(memory.moments),
                     format_bytes(memory.gradients), format_bytes(memory.activations),
                     memory.program > 0 ? fmt::format(" + program {}", format_bytes(memory.program)) : "");
}

// One line a pipeline stage: its layers, exits, share of the work and memory of each of its ranks.
std::string describe_grid(const Job& job, const Cost& cost) {
  if (job.grid.world() == 1) return fmt::format("memory    {}\n", memory_line(cost.memory.front()));
  std::string text = fmt::format("grid      tensor {} x pipeline {} x data {} = {} processes{}{}\n",
                                 job.grid.tensor, job.grid.pipeline, job.grid.data, job.grid.world(),
                                 job.options.parallel.sequence ? ", split sequences" : "",
                                 job.options.parallel.shard_optimizer ? ", shared optimizer state" : "");
  for (size_t s = 0; s < job.stages.size(); ++s) {
    const Stage& stage = job.stages[s];
    std::vector<std::string> exits;
    for (const auto& spec : job.exits_of(stage)) exits.push_back(std::to_string(spec.layer));
    text += fmt::format(
        "stage {:<3} layers {}-{}, {}: {:.1f} % of the work\n", s, stage.first_layer, stage.loaded_layers,
        exits.empty() ? "no exits" : fmt::format("exits {}", base::join(exits, ", ")), 100 * stage.share);
    text += fmt::format("  each rank {}\n", memory_line(cost.memory[s]));
  }
  return text;
}

std::string describe_training(const Job& job) {
  const auto& train = job.options.train;
  double parameters = 0;
  for (const auto& entry : model::tensor_table(job.folder.config())) {
    double count = 1;
    for (const int64_t size : entry.shape) count *= static_cast<double>(size);
    parameters += count;
  }
  return fmt::format("backbone  trained: {} parameters, final layer's loss with weight {}{}\n",
                     base::format_count(parameters), train.final_weight,
                     train.hift.groups == 0 ? ""
                                            : fmt::format("; {} groups take turns, {}", train.hift.groups,
                                                          name_of(train.hift.order)));
}

}  // namespace

Cost estimate_cost(const Job& job) {
  const auto& model = job.folder.config();
  Cost cost;
  const Flops flops{model, static_cast<double>(job.options.batch.sequence_length)};
  cost.flops_per_token = static_cast<double>(job.depth()) * flops.trained_layer(job.options.train);
  if (job.options.data.exit_inputs && job.steps > 0)  // once for each sequence
    cost.flops_per_token *= static_cast<double>(visited_sequences(job).size()) /
                            static_cast<double>(job.steps * job.options.batch.global_batch);
  cost.flops_per_token += flops.teacher(job.options.exits.loss);
  if (job.options.train.backbone())
    cost.flops_per_token +=
        flops.exit(final_exit(model, job.options.train), job.options.exits.gradient_filter);
  for (const auto& spec : job.exits) {
    cost.exit_parameters.push_back(exits::parameter_count(model, spec));
    cost.flops_per_token += flops.exit(spec, job.options.exits.gradient_filter);
  }
  for (const auto& stage : job.stages) cost.memory.push_back(stage_memory(job, stage));
  return cost;
}

std::string describe(const Job& job, const Cost& cost) {
  using base::format_count;
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
        "exit      {} layer {}: {}{}, norm {}, head {}, weight {}, temperature {}; {} own parameters, {} "
        "trained\n",
        to_string(spec.position), spec.layer, to_string(spec.kind),
        spec.has_translator() ? " with a translator" : "", to_string(spec.norm), to_string(spec.head),
        spec.weight, spec.temperature, count(cost.exit_parameters[i]), count(cost.exit_parameters[i]));
  }
  if (options.train.backbone()) text += describe_training(job);
  text += describe_grid(job, cost);
  if (options.data.exit_inputs)
    text += fmt::format("inputs    {} on disk for what the exits read, in {}\n",
                        base::format_bytes(exit_input_bytes(job)), options.data.cache);
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
