// What the exits read of each training sequence, kept on disk. On a frozen backbone it never changes: it is
// computed once, and then the backbone does not run any more, neither in later epochs nor in later runs on
// the same text.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ee/format/record_file.h"
#include "ee/train/job.h"
#include "stage_walk.h"

namespace ee::train {

// Windows of the training text that a run visits, ascending: those of its steps and of its fit.
std::vector<int64_t> visited_sequences(const Job& job);

// Bytes on disk of all that `job` keeps.
double exit_input_bytes(const Job& job);

class ExitInputs {
 public:
  // Opens or makes the files in data.cache: for each exit the stream that it reads, and the model's last one
  // if a fit or a loss asks for it; a record a sequence, [sequence_length, hidden] as computed. Names are
  // hashes of model, dtype and sequences. UserError as of RecordFile.
  explicit ExitInputs(const Job& job);

  // Computes what is missing of `sequences`; all ranks together. Returns when all of it can be read by all
  // of them; false: `go_on`, which is told how many of how many sequences this rank has done, answered false.
  // UserError: not all ranks see the same files; too little space on disk.
  bool fill(const StageView& view, const parallel::Ranks* ranks, const std::vector<int64_t>& sequences,
            int64_t micro_batch, const std::function<bool(int64_t done, int64_t of)>& go_on);

  // As walk_stage() would give it, up to the rounding of another batch. `exit`: of the run. UserError as of
  // RecordFile.
  exits::ExitInput read(size_t exit, const data::Batch& batch, const model::Backbone& backbone) const;
  // [batch, seq, hidden], all tokens: the stream behind the model's last layer.
  at::Tensor read_final(const data::Batch& batch, const model::Backbone& backbone) const;

 private:
  std::vector<int64_t> missing(const std::vector<int64_t>& sequences) const;
  void check_space(size_t sequences) const;
  static void write(format::RecordFile& file, const data::Batch& batch, const at::Tensor& stream,
                    const model::Backbone& backbone);
  static at::Tensor read(const format::RecordFile& file, const data::Batch& batch,
                         const model::Backbone& backbone);

  std::filesystem::path folder_;
  double record_bytes_;
  const data::BatchSource& source_;
  std::vector<config::ExitSpec> specs_;
  std::vector<format::RecordFile> files_;  // one an exit, then the last layer's if it is kept
  bool keeps_final_;
};

}  // namespace ee::train
