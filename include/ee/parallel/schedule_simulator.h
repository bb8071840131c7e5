// What a pipeline schedule will cost, without starting ranks: a deterministic event simulation.
//
// With a frozen backbone no backward pass crosses a stage, so a stage may go on to the next step at once
// (streaming). Flushing at the end of each step, as a schedule with a backward pass must, is simulated for
// comparison.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ee/config/tune_options.h"

namespace ee::parallel {

using config::PipelineSchedule;

struct StageTimes {
  double forward = 0;    // seconds a micro-batch, until its hidden state can be sent
  double exits = 0;      // seconds a micro-batch, after sending
  double optimizer = 0;  // seconds a step
  double send = 0;       // seconds until the next stage has a micro-batch that was sent
};

struct SimulationOptions {
  PipelineSchedule schedule = PipelineSchedule::streaming;
  int64_t steps = 1;
  int64_t micro_batches = 1;  // a step
  int64_t in_flight = 2;  // micro-batches that may wait between two stages; a fuller link stops the sender
  // Exits learn from the last stage: those of a micro-batch wait until it is through all stages. A stage goes
  // on with as many later ones as there are stages behind it, until the end of the step (train's
  // TeacherWalk).
  bool taught = false;
};

struct SimulatedSpan {
  enum class Work { forward, exits, optimizer };
  int64_t stage = 0, step = 0, micro_batch = 0;
  Work work = Work::forward;
  double begin = 0, end = 0;  // seconds
};

struct Simulation {
  std::vector<SimulatedSpan> spans;  // by stage, then by time
  double seconds = 0;                // until the last stage is done
  double efficiency = 0;             // busy share of all stages' time, in (0, 1]
};

Simulation simulate(const std::vector<StageTimes>& stages, const SimulationOptions& options);

// One line per stage, time from left to right over `width` columns: digits are forward passes (the
// micro-batch's number modulo 10), '*' exits, '+' optimizer, '.' idle.
std::string draw_timeline(const Simulation& simulation, int64_t stages, int64_t width);

}  // namespace ee::parallel
