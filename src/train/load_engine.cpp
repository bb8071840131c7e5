#include "load_engine.h"

#include "ee/checkpoint/model_folder.h"
#include "ee/comm/device.h"
#include "grid_state.h"

namespace ee::train {

namespace {

std::vector<config::ExitSpec> output_specs(const Job& job) {
  auto specs = job.folder.exits().exits;
  for (auto& spec : specs)
    for (const auto& trained : job.exits)
      if (trained.layer == spec.layer) spec = trained;
  return specs;
}

}  // namespace

Engine load_engine(const Job& job, const parallel::Ranks* ranks) {
  const Stage& stage = job.stages.at(ranks ? static_cast<size_t>(ranks->grid.position().pipeline) : 0);
  auto backbone = checkpoint::load_backbone(
      job.folder, {.device = comm::open_device(job.device),
                   .precision = job.options.train.backbone() ? config::Precision::f32  // masters
                                                             : job.options.model.precision,
                   .first_layer = stage.first_layer,
                   .last_layer = stage.loaded_layers,
                   .embedding = stage.is_first,
                   .head = stage.needs_head,
                   .ranks = ranks ? ranks->tensor : parallel::TensorRanks()});
  std::vector<int64_t> layers;
  for (const auto& spec : job.exits_of(stage)) layers.push_back(spec.layer);
  std::vector<exits::ExitHead> exits;
  if (!layers.empty()) exits = checkpoint::load_exits(job.folder, backbone, layers, at::kFloat);
  for (size_t i = 0; i < exits.size(); ++i) exits[i].spec = job.exits_of(stage)[i];  // with the overrides
  const auto dtype = checkpoint::compute_dtype(job.folder, job.options.model.precision, backbone.device());
  return {stage, std::move(backbone), std::move(exits), job.options, job.steps, ranks, dtype};
}

void write_model(const Job& job, Engine& engine) {
  const auto tensors = model_tensors(job, engine);
  if (!engine.ranks() || engine.ranks()->is_first()) {
    checkpoint::write_model_folder(job.folder, output_specs(job), tensors.exits, job.options.output,
                                   checkpoint::stored_exit_dtype(job.folder), tensors.backbone);
  } else {
    take_part(tensors.backbone);
    take_part(tensors.exits);
  }
}

}  // namespace ee::train
