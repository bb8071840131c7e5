// Micro-batches through a pipeline stage for whoever needs the model's last hidden state beside the exits'
// inputs: a fit, or a loss with a teacher.
//
// The teacher travels to the exits and not the other way round: it is one hidden state a token for all of
// them, where their inputs are one or two each, and every stage goes on training its own exits. The last
// stage broadcasts it through the pipeline; a stage waits for that of micro-batch i only after it has handed
// on as many later ones as there are stages behind it, so the pipeline stays full until the end of a round.
// Stored inputs are visited at once, the teacher is stored with them.
#pragma once

#include <deque>
#include <functional>
#include <vector>

#include "ee/parallel/ranks.h"
#include "stage_walk.h"

namespace ee::train {

class TeacherWalk {
 public:
  // inputs: of the stage's exits, in their order. final_hidden [batch, seq, hidden], all tokens: the stream
  // behind the model's last layer, in front of its norm.
  using Visit = std::function<void(const data::Batch& batch, const std::vector<exits::ExitInput>& inputs,
                                   const at::Tensor& final_hidden)>;

  // ranks: null for a single process.
  TeacherWalk(const StageView& view, const parallel::Ranks* ranks, Visit visit);

  // Runs the stage on `batch`, and visits the oldest batch whose teacher is due.
  void push(const data::Batch& batch);
  // Visits the batches that are left. All ranks of a pipeline push the same batches before it.
  void drain();

 private:
  struct Waiting {
    data::Batch batch;
    std::vector<exits::ExitInput> inputs;
    at::Tensor final_hidden;  // on the last stage
  };
  void visit_oldest();

  StageView view_;
  const parallel::Ranks* ranks_;
  Visit visit_;
  size_t stages_behind_;
  std::deque<Waiting> waiting_;
};

}  // namespace ee::train
