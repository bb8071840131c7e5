// What of the backbone is trained with train.mode all, in the groups that are clipped and updated together.
#pragma once

#include <string>
#include <vector>

#include "ee/model/tensor_table.h"
#include "ee/train/stages.h"

namespace ee::train {

struct BackboneTensor {
  std::string name;
  model::TensorShape shape;
  at::Tensor member;  // undefined where the backbone is only a shape
};

// One layer, the embedding (and with it a tied head), the final norm, or a head of its own.
struct BackboneGroup {
  std::string title;
  int64_t unit = 0;  // of turns.h
  std::vector<BackboneTensor> tensors;
  // Pipeline stages that hold it, ascending. Layers have one; embedding, norm and head are where they are
  // used, each stage has a part of their gradient, and all make the same update.
  std::vector<int64_t> stages;
};

// The groups that `stage` holds, in the order of the tensor table.
std::vector<BackboneGroup> backbone_groups(model::Backbone& backbone, const Stage& stage);

// The same of shapes alone.
std::vector<BackboneGroup> backbone_groups(const config::ModelConfig& config, const Stage& stage);

}  // namespace ee::train
