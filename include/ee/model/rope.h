// Rotary position embedding: the angles by which heads are turned at each position.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "ee/config/model_config.h"

namespace ee::model {

// Of some positions, one a row. The pair (i, i + head_dim / 2) of a head is turned by the angle of column i.
struct RopeRows {
  at::Tensor cos, sin;  // [positions, head_dim / 2], f32
};

// cos and sin of every position of a model (linear and llama3 scaling included). They are computed when a
// position is first asked for and kept from then on, at most twice as many as were needed: a model costs what
// its longest sequence takes, whatever its max_position_embeddings allow. Copies share what is kept, and
// several threads may ask at the same time.
class Rope {
 public:
  Rope() = default;  // of no model: nothing may be asked
  Rope(const config::ModelConfig& config, at::Device device);

  // Positions first .. first + count - 1, which the model must have. Views of what is kept, on the device.
  RopeRows rows(int64_t first, int64_t count) const;

 private:
  class Table;
  std::shared_ptr<Table> table_;
};

}  // namespace ee::model
