#include "attention_window.h"

#include <algorithm>
#include <array>

namespace ee::config {

namespace {

enum class LayerType { full, sliding };
constexpr std::array<EnumName<LayerType>, 2> enum_names(LayerType) {
  return {{{LayerType::full, "full_attention"}, {LayerType::sliding, "sliding_attention"}}};
}

// One entry for each layer, or nothing where the file does not say.
std::vector<LayerType> read_layer_types(const JsonFields& fields, int64_t layers) {
  const auto types = fields.find<std::vector<LayerType>>("layer_types");
  if (!types || fields.known_problem("layer_types")) return {};
  if (std::ssize(*types) != layers)
    fields.problem("layer_types",
                   fmt::format("has {} entries, num_hidden_layers is {}", types->size(), layers));
  return *types;
}

// 0: none. `absent`: what transformers takes where there is no such key.
int64_t read_window(const JsonFields& fields, int64_t absent) {
  if (!fields.object().contains("sliding_window")) return absent;
  const auto window = fields.find<int64_t>("sliding_window");
  if (window && *window < 1 && !fields.known_problem("sliding_window"))
    fields.problem("sliding_window", fmt::format("must be null or at least 1, got {}", *window));
  return window.value_or(0);
}

constexpr int64_t kDefaultWindow = 4096;    // of mistral and of qwen2
constexpr int64_t kDefaultFullLayers = 28;  // qwen2's max_window_layers

// The layers behind qwen2's first max_window_layers; all of mistral's.
std::vector<LayerType> types_by_number(int64_t full_layers, int64_t layers) {
  std::vector<LayerType> types(static_cast<size_t>(layers), LayerType::sliding);
  std::fill_n(types.begin(), std::clamp<int64_t>(full_layers, 0, layers), LayerType::full);
  return types;
}

}  // namespace

void read_attention_window(const JsonFields& fields, ModelConfig& config) {
  std::vector<LayerType> types = read_layer_types(fields, config.layers);
  const bool mistral = config.model_type == "mistral";
  const bool qwen2 = config.model_type == "qwen2" && fields.find<bool>("use_sliding_window").value_or(false);
  int64_t window = mistral || qwen2 ? read_window(fields, kDefaultWindow) : 0;
  if (window >= config.max_positions) {
    types.clear();
    window = 0;
  }
  const int64_t full_layers =
      mistral ? 0 : fields.find<int64_t>("max_window_layers").value_or(kDefaultFullLayers);
  const std::vector<LayerType> by_number =
      types_by_number(window > 0 ? full_layers : config.layers, config.layers);
  if (types.empty()) types = by_number;
  // transformers looks at layer_types only in qwen2.
  if (types != by_number && (window == 0 || mistral))
    fields.problem("layer_types", window == 0
                                      ? "names sliding_attention, but there is no sliding_window"
                                      : "contradicts sliding_window, which is all of mistral's layers'");
  for (size_t i = 0; i < types.size(); ++i)
    if (types[i] == LayerType::sliding) config.window_layers.push_back(static_cast<int64_t>(i) + 1);
  config.window = config.window_layers.empty() ? 0 : window;
}

void write_attention_window(const ModelConfig& config, Json& json) {
  if (config.model_type == "mistral") {
    EE_CHECK(config.window == 0 || std::ssize(config.window_layers) == config.layers,
             "a window on {} of mistral's {} layers", config.window_layers.size(), config.layers);
    json["sliding_window"] = config.window == 0 ? Json() : Json(config.window);
  }
  if (config.model_type != "qwen2") return;
  json["use_sliding_window"] = config.window > 0;
  if (config.window == 0) return;
  json["sliding_window"] = config.window;
  for (int64_t layer = 1; layer <= config.layers; ++layer)
    json["layer_types"].push_back(name_of(
        std::ranges::binary_search(config.window_layers, layer) ? LayerType::sliding : LayerType::full));
}

TextLimit text_limit(const ModelConfig& config) {
  if (config.window == 0) return {config.max_positions, "max_position_embeddings"};
  return {config.window, "sliding_window: attention is computed exactly up to it, and not at all beyond"};
}

}  // namespace ee::config
