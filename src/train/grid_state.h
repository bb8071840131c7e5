// The state of a run, spread over a grid of ranks, as whole tensors in files that know no grid.
#pragma once

#include "ee/checkpoint/training_state.h"
#include "ee/train/engine.h"
#include "ee/train/job.h"

namespace ee::train {

// Masters and moments of all that is trained, in one order on all ranks. Every rank must ask for every
// tensor, in order: the parts come together on rank 0, on the others get() returns nothing. The engine must
// outlive it.
checkpoint::TrainingTensors training_tensors(const Job& job, Engine& engine);

struct ModelTensors {
  checkpoint::TensorSources
      exits;  // all of the model: the trained ones as they are now, the others as they were
  checkpoint::TensorSources backbone;  // empty: it was not trained
};

// What the result is written from, backbone first; as above.
ModelTensors model_tensors(const Job& job, Engine& engine);

// Calls every get(): what ranks do that write nothing.
void take_part(const checkpoint::TensorSources& sources);

// Each rank reads its slices of masters and moments. UserError: tensors that do not fit.
void restore(const checkpoint::TrainingCheckpoint& checkpoint, const Job& job, Engine& engine);

}  // namespace ee::train
