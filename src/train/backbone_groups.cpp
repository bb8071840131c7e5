#include "backbone_groups.h"

#include <algorithm>
#include <charconv>
#include <numeric>

namespace ee::train {

namespace {

constexpr std::string_view kLayers = "model.layers.";  // <0-based>.
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
constexpr std::string_view kNorm = "model.norm.weight";

std::vector<int64_t> with_first(std::vector<int64_t> stages) {
  if (stages.empty() || stages.front() != 0) stages.insert(stages.begin(), 0);
  return stages;
}

std::vector<int64_t> all_stages(int64_t count) {
  std::vector<int64_t> stages(static_cast<size_t>(count));
  std::iota(stages.begin(), stages.end(), int64_t{0});
  return stages;
}

// The group that begins with the tensor `name`, without tensors.
BackboneGroup group_of(const config::ModelConfig& config, const Stage& stage, std::string_view name) {
  if (name.starts_with(kLayers)) {
    int64_t layer = 0;
    std::from_chars(name.data() + kLayers.size(), name.data() + name.size(), layer);
    return {.title = fmt::format("layer {}", layer + 1),
            .unit = layer + 1,
            .tensors = {},
            .stages = {stage.index}};
  }
  if (name == kEmbedding)
    return {.title = "embedding",
            .unit = 0,
            .tensors = {},
            .stages = config.tie_embeddings ? with_first(stage.head_stages) : std::vector<int64_t>{0}};
  if (name == kNorm)
    return {
        .title = "final norm", .unit = config.layers + 1, .tensors = {}, .stages = all_stages(stage.count)};
  return {.title = "output embedding", .unit = config.layers + 1, .tensors = {}, .stages = stage.head_stages};
}

}  // namespace

std::vector<BackboneGroup> backbone_groups(model::Backbone& backbone, const Stage& stage) {
  std::vector<BackboneGroup> groups;
  model::visit_backbone(backbone,
                        [&](const std::string& name, const model::TensorShape& shape, at::Tensor& member) {
                          auto group = group_of(backbone.config, stage, name);
                          if (groups.empty() || groups.back().title != group.title)
                            groups.push_back(std::move(group));
                          groups.back().tensors.push_back({name, shape, member});
                        },
                        {.embedding = stage.is_first, .head = stage.needs_head});
  return groups;
}

std::vector<BackboneGroup> backbone_groups(const config::ModelConfig& config, const Stage& stage) {
  model::Backbone shapes;
  shapes.config = config;
  shapes.first_layer = stage.first_layer;
  shapes.layers.resize(static_cast<size_t>(stage.last_layer - stage.first_layer + 1));
  return backbone_groups(shapes, stage);
}

}  // namespace ee::train
