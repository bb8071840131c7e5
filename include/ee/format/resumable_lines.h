// JSON Lines that take long to make: the file appears when all lines are there, and a run that was
// interrupted goes on where it stopped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "ee/format/jsonl.h"

namespace ee::format {

// Until finish() the lines are in `output`.part, behind a first line with all that they depend on.
class ResumableLines {
 public:
  // Goes on with the part that is there. UserError: `output` exists; its part was `made_by` something else.
  ResumableLines(const std::filesystem::path& output, const nlohmann::json& made_by);

  int64_t lines() const { return lines_; }  // written, also by the runs before
  void write(const nlohmann::json& line);
  void finish();  // `output` appears, complete, in place of its part

 private:
  int64_t resume(const nlohmann::json& made_by);

  std::filesystem::path output_, part_;
  int64_t lines_;
  std::unique_ptr<JsonlWriter> writer_;
};

}  // namespace ee::format
