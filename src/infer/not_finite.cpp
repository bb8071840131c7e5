#include "ee/infer/not_finite.h"

namespace ee::infer {

namespace {

std::string place(NotFinite::Part part, int64_t layer) {
  const std::string whose =
      layer == NotFinite::kModelsHead ? "the final layer" : fmt::format("the exit at layer {}", layer);
  return part == NotFinite::Part::gate ? fmt::format("the gate's probability at {} is", whose)
                                       : fmt::format("the logits of {} are", whose);
}

}  // namespace

NotFinite::NotFinite(Part part, int64_t layer, int64_t position, const std::string& sequence)
    : base::UserError(
          "{} NaN or infinite at position {} of {} (its first token is at 0). Either weights are: ee-convert "
          "verify finds those; or a value left the range of the dtype that computes: try --precision f32 or "
          "bf16",
          place(part, layer), position, sequence),
      part_(part),
      layer_(layer),
      position_(position) {}

}  // namespace ee::infer
