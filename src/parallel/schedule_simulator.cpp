#include "ee/parallel/schedule_simulator.h"

#include <algorithm>

#include "ee/base/error.h"

namespace ee::parallel {

namespace {

using Work = SimulatedSpan::Work;

// One stage's clock; spans are appended in order.
struct Stage {
  explicit Stage(const StageTimes& stage_times) : times(&stage_times) {}

  const StageTimes* times;
  double now = 0;
  double busy = 0;
  std::vector<double> forward_begin;  // of every micro-batch so far: when it left the incoming link
  std::vector<SimulatedSpan> spans;

  void work(SimulatedSpan span, double seconds) {
    span.begin = now;
    now += seconds;
    span.end = now;
    busy += seconds;
    spans.push_back(span);
  }
  void visit_exits(SimulatedSpan span, int64_t micro_batch, double not_before) {
    now = std::max(now, not_before);
    span.work = Work::exits;
    span.micro_batch = micro_batch;
    if (times->exits > 0) work(span, times->exits);
  }
  void update(SimulatedSpan span, int64_t micro_batch) {
    span.work = Work::optimizer;
    span.micro_batch = micro_batch;
    if (times->optimizer > 0) work(span, times->optimizer);
  }
};

}  // namespace

Simulation simulate(const std::vector<StageTimes>& times, const SimulationOptions& options) {
  EE_CHECK(!times.empty() && options.steps >= 1 && options.micro_batches >= 1 && options.in_flight >= 1,
           "{} stages, {} steps", times.size(), options.steps);
  std::vector<Stage> stages;
  for (const StageTimes& stage : times) stages.emplace_back(stage);

  const auto count = static_cast<int64_t>(stages.size());
  const int64_t total = options.steps * options.micro_batches;
  // arrival[s][i]: when micro-batch i is at stage s. Stages are simulated micro-batch by micro-batch; a stage
  // depends on earlier ones for the same micro-batch and on the next one only for micro-batches `in_flight`
  // before.
  std::vector<double> taught_at;  // when the last stage has sent back what exits learn from
  std::vector arrival(static_cast<size_t>(count), std::vector<double>(static_cast<size_t>(total), 0.0));
  for (int64_t i = 0; i < total; ++i) {
    const int64_t step = i / options.micro_batches, micro_batch = i % options.micro_batches;
    if (options.schedule == PipelineSchedule::flush && micro_batch == 0) {
      double done = 0;
      for (const Stage& stage : stages) done = std::max(done, stage.now);
      for (Stage& stage : stages) stage.now = done;
    }
    for (int64_t s = 0; s < count; ++s) {
      Stage& stage = stages[s];
      SimulatedSpan span{.stage = s, .step = step, .micro_batch = micro_batch};
      stage.now = std::max(stage.now, arrival[s][i]);
      stage.forward_begin.push_back(stage.now);
      stage.work(span, stage.times->forward);
      if (s + 1 < count) {
        if (i >= options.in_flight)
          stage.now = std::max(stage.now, stages[s + 1].forward_begin[i - options.in_flight]);
        arrival[s + 1][i] = stage.now + stage.times->send;
      }
      // Learning from the last stage, exits are behind by the stages that are in between.
      const int64_t visited = options.taught ? i - (count - 1 - s) : i;
      if (s + 1 == count) taught_at.push_back(stage.now);
      if (visited >= step * options.micro_batches)
        stage.visit_exits(span, visited - step * options.micro_batches,
                          options.taught ? taught_at[visited] : 0);
    }
    if (micro_batch + 1 < options.micro_batches) continue;
    for (int64_t s = 0; s < count; ++s) {
      SimulatedSpan span{.stage = s, .step = step};
      const int64_t waiting = options.taught ? std::min(count - 1 - s, options.micro_batches) : 0;
      for (int64_t visited = i + 1 - waiting; visited <= i; ++visited)
        stages[s].visit_exits(span, visited - step * options.micro_batches, taught_at[visited]);
      stages[s].update(span, micro_batch);
    }
  }

  Simulation result;
  double busy = 0;
  for (Stage& stage : stages) {
    result.seconds = std::max(result.seconds, stage.now);
    busy += stage.busy;
    result.spans.insert(result.spans.end(), stage.spans.begin(), stage.spans.end());
  }
  result.efficiency = result.seconds > 0 ? busy / (result.seconds * static_cast<double>(count)) : 1.0;
  return result;
}

std::string draw_timeline(const Simulation& simulation, int64_t stages, int64_t width) {
  std::vector<std::string> rows(static_cast<size_t>(stages), std::string(static_cast<size_t>(width), '.'));
  const auto column = [&](double time) {
    return std::clamp<int64_t>(static_cast<int64_t>(time / simulation.seconds * static_cast<double>(width)),
                               0, width);
  };
  for (const SimulatedSpan& span : simulation.spans) {
    const char mark = span.work == Work::forward ? static_cast<char>('0' + span.micro_batch % 10)
                      : span.work == Work::exits ? '*'
                                                 : '+';
    for (int64_t x = column(span.begin); x < column(span.end); ++x) rows[span.stage][x] = mark;
  }
  std::string text;
  for (int64_t s = 0; s < stages; ++s) text += fmt::format("stage {:>2} |{}|\n", s, rows[s]);
  return text;
}

}  // namespace ee::parallel
