// Where decoding or measuring ends because an exit, or the final layer, says nothing that is a number.
#pragma once

#include <cstdint>
#include <string>

#include "ee/base/error.h"

namespace ee::infer {

// The largest logit is NaN or infinite (a logit of -inf beside finite ones is none of this: its token is
// impossible), or a gate's probability is NaN. Names the layer and the position, and what to do.
class NotFinite : public base::UserError {
 public:
  enum class Part { logits, gate };
  static constexpr int64_t kModelsHead = 0;  // as `layer`: behind the final layer

  // `layer`: of the exit. `position`: of the token that they follow, the sequence's first being 0.
  // `sequence`: which one it is, for the message.
  NotFinite(Part part, int64_t layer, int64_t position, const std::string& sequence = "the sequence");

  Part part() const { return part_; }
  int64_t layer() const { return layer_; }
  int64_t position() const { return position_; }

 private:
  Part part_;
  int64_t layer_, position_;
};

}  // namespace ee::infer
