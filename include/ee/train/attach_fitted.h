// New exits that are solved on text as they are attached.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ee/checkpoint/attach.h"
#include "ee/train/fit.h"

namespace ee::train {

struct FitText {
  std::vector<std::string> paths;  // as data.train
  int64_t tokens = 50000;
};

// attach_exits(), then the exits with init fit are fitted on the text by fit_exits(), in a single process
// with all cores. The output appears complete or not at all. UserError as from both.
Fit attach_fitted(const checkpoint::AttachOptions& options, const FitText& text);

}  // namespace ee::train
