#include "ee/train/simulate.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "ee/checkpoint/model_folder.h"
#include "ee/comm/device.h"
#include "ee/exits/exit_loss.h"
#include "ee/parallel/schedule_simulator.h"
#include "ee/train/engine.h"

namespace ee::train {

namespace {

constexpr int kRepetitions = 3;
constexpr double kBytesPerSecond = 2e9;  // between two stages: a conservative local link
constexpr int64_t kTimelineWidth = 100, kTimelineSteps = 4, kRateSteps = 50;

// The fastest of a few runs: what disturbs a run only makes it slower.
double seconds_of(const std::function<void()>& work) {
  double best = 0;
  for (int i = 0; i < kRepetitions; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    best = i == 0 ? seconds : std::min(best, seconds);
  }
  return best;
}

struct ExitTimes {
  double micro_batch = 0, optimizer = 0;
};

ExitTimes time_exit(const Job& job, const model::Backbone& edge, const config::ExitSpec& spec,
                    const model::LayerTrace& trace, const at::Tensor& targets,
                    const exits::Teacher& teacher) {
  auto exit = std::move(checkpoint::load_exits(job.folder, edge, {spec.layer}, at::kFloat).front());
  exit.spec = spec;
  Engine engine(edge, {std::move(exit)}, job.options, job.steps);
  const exits::ExitInput input = exits::exit_input(spec, trace);
  const exits::ExitLossOptions loss{.loss = job.options.exits.loss,
                                    .token_weights = job.options.exits.token_weights,
                                    .gradient_filter = job.options.exits.gradient_filter};
  ExitTimes times;
  times.micro_batch = seconds_of(
      [&] { exits::accumulate_exit_gradient(edge, engine.exits().front(), input, targets, loss, &teacher); });
  times.optimizer = seconds_of([&] {
    engine.optimizer().reduce(0);
    engine.optimizer().step(job.options.optimizer.lr, 0);
  });
  return times;
}

std::vector<parallel::StageTimes> stage_times(const Job& job, const MeasuredTimes& times) {
  const auto& model = job.folder.config();
  const double bytes =
      job.element_bytes() * static_cast<double>(job.options.batch.micro_batch *
                                                job.options.batch.sequence_length * model.hidden_size);
  const auto tensor = static_cast<double>(job.grid.tensor);
  std::vector<parallel::StageTimes> stages;
  for (const Stage& stage : job.stages) {
    parallel::StageTimes seconds{.send = stage.is_last ? 0 : bytes / kBytesPerSecond};
    for (int64_t layer = stage.first_layer; layer <= std::min(stage.last_layer, job.depth()); ++layer)
      seconds.forward += times.layers[static_cast<size_t>(layer - 1)] / tensor;
    for (size_t i = 0; i < stage.exit_count; ++i) seconds.exits += times.exits[stage.first_exit + i] / tensor;
    if (stage.exit_count > 0) seconds.exits += times.teacher / tensor;
    seconds.optimizer = times.optimizer_per_exit * static_cast<double>(stage.exit_count) / tensor;
    stages.push_back(seconds);
  }
  return stages;
}

}  // namespace

MeasuredTimes measure_times(const Job& job) {
  if (job.options.train.backbone())
    throw base::UserError("--simulate knows forward pipelines only; leave it out with train.mode all");
  const c10::AutoGradMode no_grad(false);
  at::set_num_threads(static_cast<int>(job.options.threads));
  checkpoint::LoadOptions load{
      .device = comm::open_device(job.device), .precision = job.options.model.precision, .last_layer = 0};
  const model::Backbone edge = checkpoint::load_backbone(job.folder, load);  // embedding, norm and head only
  const int64_t sample =
      *job.training.first_learned(0, job.training.sequences().size());  // some have a target
  const auto batch = job.training.at(sample, job.options.batch.micro_batch);
  const at::Tensor targets = batch.targets.to(edge.device());
  load.embedding = load.head = false;

  MeasuredTimes times;
  times.exits.resize(job.exits.size());
  model::LayerTrace trace;
  trace.output = edge.embed(batch.inputs.to(edge.device()));
  exits::Teacher teacher;  // of any hidden state: it takes as long as of the last one
  const config::ExitsOptions& learning = job.options.exits;
  if (learning.loss.needs_teacher())
    times.teacher = seconds_of([&] {
      teacher = exits::make_teacher(edge, trace.output, targets, learning.loss, learning.gradient_filter);
    });
  for (int64_t depth = 0; depth <= job.depth(); ++depth) {
    if (depth > 0) {
      load.first_layer = load.last_layer = depth;
      const model::Backbone layer = checkpoint::load_backbone(job.folder, load);
      const at::Tensor stream = trace.output;
      times.layers.push_back(seconds_of(
          [&] { trace = model::decoder_layer(layer.config, layer.layer(depth), stream, layer.rope); }));
    }
    for (size_t i = 0; i < job.exits.size(); ++i) {
      if (job.exits[i].depth() != depth) continue;
      const auto exit = time_exit(job, edge, job.exits[i], trace, targets, teacher);
      times.exits[i] = exit.micro_batch;
      times.optimizer_per_exit = std::max(times.optimizer_per_exit, exit.optimizer);
    }
  }
  return times;
}

std::string simulate_run(const Job& job, const MeasuredTimes& times) {
  const auto stages = stage_times(job, times);
  std::string text = "measured  one micro-batch on this machine\n";
  for (size_t s = 0; s < stages.size(); ++s)
    text += fmt::format("stage {:<3} forward {:.3f} s, exits {:.3f} s; optimizer {:.3f} s a step\n", s,
                        stages[s].forward, stages[s].exits, stages[s].optimizer);
  const int64_t micro_batches =
      job.options.batch.global_batch / job.options.batch.micro_batch / job.grid.data;
  for (const auto schedule : {parallel::PipelineSchedule::streaming, parallel::PipelineSchedule::flush}) {
    parallel::SimulationOptions options{.schedule = schedule,
                                        .steps = kRateSteps,
                                        .micro_batches = micro_batches,
                                        .in_flight = job.options.parallel.in_flight,
                                        .taught = job.options.exits.loss.needs_teacher()};
    const auto run = parallel::simulate(stages, options);
    const double rate = static_cast<double>(kRateSteps * job.tokens_per_step()) / run.seconds;
    options.steps = kTimelineSteps;
    text += fmt::format("{:<10}{:.0f} tokens/s, {:.1f} % of the stages' time is work; {} steps:\n{}\n",
                        config::name_of(schedule), rate, 100 * run.efficiency, kTimelineSteps,
                        parallel::draw_timeline(parallel::simulate(stages, options),
                                                static_cast<int64_t>(stages.size()), kTimelineWidth));
  }
  return text + "digits: forward passes of micro-batches, *: exits, +: optimizer, .: idle\n";
}

}  // namespace ee::train
