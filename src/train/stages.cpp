#include "ee/train/stages.h"

#include <algorithm>

#include "ee/parallel/stage_plan.h"

namespace ee::train {

double Flops::attention() const {
  const auto q = static_cast<double>(model.heads * model.head_dim);
  const auto kv = static_cast<double>(model.kv_heads * model.head_dim);
  const double projections = 2.0 * static_cast<double>(model.hidden_size) * (2 * q + 2 * kv);
  return projections + 2.0 * q * sequence_length;  // each row sees half of the sequence, scores and mixing
}

double Flops::exit(const config::ExitSpec& spec, double gradient_filter) const {
  double branch = 0;
  if (spec.kind == config::ExitKind::mlp) branch = mlp() * (1 + 1 + 1.0 / 3);
  if (spec.kind == config::ExitKind::layer) branch = layer() * 3;
  const auto hidden = static_cast<double>(model.hidden_size),
             rank = static_cast<double>(spec.translator_rank);
  if (spec.translator == config::TranslatorKind::full) branch += 2 * 2 * hidden * hidden;
  if (spec.translator == config::TranslatorKind::low_rank) branch += (2 + 3) * 2 * hidden * rank;
  const double backward = gradient_filter > 0 ? 0 : spec.head == config::HeadKind::own ? 3 : 2;
  return branch + head() * (1 + backward);
}

config::ExitSpec final_exit(const config::ModelConfig& model, const config::TrainOptions& train) {
  return {.layer = model.layers,
          .kind = config::ExitKind::norm,
          .head = config::HeadKind::shared,
          .norm = config::NormKind::shared,
          .weight = train.final_weight};
}

int64_t run_depth(const config::ModelConfig& model, const std::vector<config::ExitSpec>& exits,
                  const config::TuneOptions& options) {
  const bool whole = options.train.backbone() || options.exits.loss.needs_teacher();
  int64_t depth = whole ? model.layers : 0;
  for (const auto& spec : exits) depth = std::max(depth, spec.depth());
  return depth;
}

std::vector<Stage> plan_run(const config::ModelConfig& model, const std::vector<config::ExitSpec>& exits,
                            const config::TuneOptions& options, int64_t loaded_layers) {
  const int64_t depth = std::max<int64_t>(1, run_depth(model, exits, options));  // a stage is never empty
  const Flops flops{model, static_cast<double>(options.batch.sequence_length)};
  std::vector<parallel::DepthCost> costs(static_cast<size_t>(depth + 1));
  for (int64_t layer = 1; layer <= depth; ++layer)
    costs[static_cast<size_t>(layer)].layer = flops.trained_layer(options.train);
  for (const auto& spec : exits)
    costs[static_cast<size_t>(spec.depth())].exits += flops.exit(spec, options.exits.gradient_filter);
  if (options.train.backbone())
    costs.back().exits += flops.exit(final_exit(model, options.train), options.exits.gradient_filter);
  else
    costs.back().exits += flops.teacher(options.exits.loss);

  const auto plan = parallel::plan_stages(costs, options.parallel.pipeline);
  double total = 0;
  for (const auto& part : plan) total += part.total();
  std::vector<Stage> stages;
  for (size_t s = 0; s < plan.size(); ++s) {
    Stage stage{.first_layer = plan[s].first_layer,
                .last_layer = plan[s].last_layer,
                .loaded_layers = plan[s].last_layer,
                .is_first = s == 0,
                .is_last = s + 1 == plan.size(),
                .index = static_cast<int64_t>(s),
                .count = static_cast<int64_t>(plan.size()),
                .share = plan[s].total() / total,
                .needs_head = false,
                .head_stages = {}};
    if (stage.is_last) stage.loaded_layers = std::max(loaded_layers, stage.last_layer);
    stage.needs_head = stage.is_last && stage.loaded_layers == model.layers;
    if (s > 0) stage.first_exit = stages.back().first_exit + stages.back().exit_count;
    for (const auto& exit : exits) {
      if (!parallel::is_on_stage(exit, stage.first_layer, stage.last_layer)) continue;
      ++stage.exit_count;
      stage.needs_head |= exit.head == config::HeadKind::shared || options.exits.loss.kl > 0;
    }
    stages.push_back(std::move(stage));
  }
  std::vector<int64_t> with_head;
  for (const auto& stage : stages)
    if (stage.needs_head) with_head.push_back(stage.index);
  for (auto& stage : stages) stage.head_stages = with_head;
  return stages;
}

}  // namespace ee::train
