#include "teacher_walk.h"

#include <ATen/ops/empty.h>

#include "exit_inputs.h"

namespace ee::train {

TeacherWalk::TeacherWalk(const StageView& view, const parallel::Ranks* ranks, Visit visit)
    : view_(view),
      ranks_(ranks),
      visit_(std::move(visit)),
      stages_behind_(ranks ? static_cast<size_t>(ranks->pipeline.size() - 1 - ranks->pipeline.rank())
                           : size_t{0}) {}

void TeacherWalk::push(const data::Batch& batch) {
  Waiting next{
      .batch = batch, .inputs = std::vector<exits::ExitInput>(view_.exits.size()), .final_hidden = {}};
  const at::Tensor stream =
      walk_stage(view_, batch, view_.backbone.last_layer(),
                 [&](size_t exit, const exits::ExitInput& input) { next.inputs[exit] = input; });
  if (view_.stored) return visit_(batch, next.inputs, view_.stored->read_final(batch, view_.backbone));
  if (view_.stage.is_last) next.final_hidden = view_.backbone.ranks.gather_tokens(stream).contiguous();
  waiting_.push_back(std::move(next));
  if (waiting_.size() > stages_behind_) visit_oldest();
}

void TeacherWalk::drain() {
  while (!waiting_.empty()) visit_oldest();
}

void TeacherWalk::visit_oldest() {
  Waiting oldest = std::move(waiting_.front());
  waiting_.pop_front();
  if (ranks_ && ranks_->pipeline.size() > 1) {
    const at::Tensor tokens = oldest.batch.inputs;
    if (!view_.stage.is_last)
      oldest.final_hidden = at::empty({tokens.size(0), tokens.size(1), view_.backbone.config.hidden_size},
                                      view_.backbone.options());
    ranks_->pipeline.broadcast(oldest.final_hidden, ranks_->pipeline.size() - 1);
  }
  visit_(oldest.batch, oldest.inputs, oldest.final_hidden);
}

}  // namespace ee::train
