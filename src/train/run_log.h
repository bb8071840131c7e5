// What a run tells: console lines and a progress bar, metrics.jsonl, TensorBoard events.
//
// metrics.jsonl has one object a line, told apart by their keys:
//   {"step", "tokens", "learned_tokens", "epoch", "loss": {"10": ..}, "gradient_norm": {"10": ..},
//    "learning_rate", "seconds_per_step", "tokens_per_second", "peak_memory_bytes"}
//    over the log interval: "learned_tokens" are its targets without those of prompts, losses are means over
//    them, norms over the steps that had some. "empty_steps" had none and changed nothing (absent if there
//    were no such steps); where all were so, losses and norms are null. With train.mode all, "final" beside
//    the layers: the final layer's loss, the backbone's gradient
//   {"step", "evaluation": {"tokens", "exits": [{"layer", "loss", "perplexity", "agreement"}], "final":
//   {..}}}
//   {"step", "event": "start" | "resume" | "checkpoint" | "stop" | "end"}
// After a crash and a resume some steps are there twice; the later line counts.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "ee/format/jsonl.h"
#include "ee/format/tensorboard.h"
#include "ee/train/engine.h"
#include "ee/train/evaluation.h"
#include "ee/train/job.h"
#include "progress_bar.h"

namespace ee::train {

class RunLog {
 public:
  explicit RunLog(const Job& job);

  // `step` steps are done, the last of them with `result` in `seconds`. Writes a line each
  // logging.every_steps.
  void step(int64_t step, const StepResult& result, double seconds);
  void evaluation(int64_t step, const Evaluation& evaluation);
  void event(int64_t step, const char* name);
  void message(std::string_view text);

 private:
  void flush(int64_t step);
  void tell_empty_steps(int64_t step, int64_t empty);
  void scalar(const std::string& tag, double value, int64_t step);

  const Job& job_;
  format::JsonlWriter metrics_;
  std::optional<format::TensorBoardWriter> tensorboard_;
  ProgressBar bar_;
  std::vector<StepResult> interval_;  // since the last line
  double interval_seconds_ = 0;
};

}  // namespace ee::train
