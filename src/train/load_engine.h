// From a job to an engine with weights, and from there to a model folder.
#pragma once

#include "ee/train/engine.h"
#include "ee/train/job.h"

namespace ee::train {

// This rank's share: the layers and exits of its stage, of which it reads only its slices.
Engine load_engine(const Job& job, const parallel::Ranks* ranks);

// Writes the run's result, options.output, by all ranks together: all of the model's exits, with the
// overrides of the run. Returns before the first rank has finished writing.
void write_model(const Job& job, Engine& engine);

}  // namespace ee::train
