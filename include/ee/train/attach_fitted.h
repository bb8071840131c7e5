// New exits that are solved on text as they are attached.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ee/checkpoint/attach.h"
#include "ee/train/fit.h"

namespace ee::train {

struct FitText {
  std::vector<std::string> paths;  // as data.train
  int64_t tokens = 50000;
  // The model runs in this dtype meanwhile. None: bf16 on a CPU with instructions for it, which takes half of
  // the time; otherwise as stored. Exits are solved in f64 and stored as if nothing had been said.
  std::optional<config::Precision> precision = {};
};

// attach_exits(), then the exits with init fit are fitted on the text by fit_exits(), in a single process
// with all cores. The output appears complete or not at all. UserError as from both.
Fit attach_fitted(const checkpoint::AttachOptions& options, const FitText& text);

}  // namespace ee::train
