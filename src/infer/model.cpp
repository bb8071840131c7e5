#include "ee/infer/model.h"

#include <algorithm>
#include <cmath>

#include "ee/base/error.h"
#include "ee/base/text.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/infer/engine.h"
#include "ee/parallel/stage_plan.h"
#include "ee/tokenizer/ids_only.h"
#include "ee/tokenizer/model_tokenizer.h"

namespace ee::infer {

namespace {

std::vector<config::ExitSpec> find_exits(const checkpoint::ModelFolder& folder,
                                         const std::vector<int64_t>& layers) {
  if (!folder.has_exits() && layers.empty()) {
    return {};
  }
  return checkpoint::exits_at(folder, layers);  // says so when there are none
}

// Work at each depth by the weights that it reads: that is what decoding costs.
std::vector<parallel::DepthCost> decoding_costs(const config::ModelConfig& config,
                                                const std::vector<config::ExitSpec>& exits) {
  std::vector<parallel::DepthCost> costs(static_cast<size_t>(config.layers + 1));
  for (const model::TensorEntry& entry : model::tensor_table(config)) {
    if (entry.layer > 0) {
      costs[static_cast<size_t>(entry.layer)].layer +=
          static_cast<double>(c10::multiply_integers(entry.shape));
    }
  }
  const auto head = static_cast<double>(config.vocab_size * config.hidden_size);
  for (const config::ExitSpec& exit : exits) {
    costs[static_cast<size_t>(exit.depth())].exits +=
        static_cast<double>(exits::parameter_count(config, exit)) +
        (exit.head == config::HeadKind::shared ? head : 0.0);
  }
  costs.back().exits += head;
  return costs;
}

model::Backbone load_stage(const checkpoint::ModelFolder& folder, const std::vector<config::ExitSpec>& exits,
                           const LoadRequest& request) {
  const parallel::StagePlan stage =
      parallel::plan_stages(decoding_costs(folder.config(), exits), request.stages)
          .at(static_cast<size_t>(request.stage));
  const auto needs_head = [&](const config::ExitSpec& exit) {
    return exit.head == config::HeadKind::shared &&
           parallel::is_on_stage(exit, stage.first_layer, stage.last_layer);
  };
  const bool is_last = request.stage + 1 == request.stages;
  return checkpoint::load_backbone(folder, {.precision = request.precision,
                                            .first_layer = stage.first_layer,
                                            .last_layer = stage.last_layer,
                                            .embedding = request.stage == 0,
                                            .head = is_last || std::ranges::any_of(exits, needs_head),
                                            .ranks = request.tensor});
}

int64_t layer_of(const exits::ExitHead& exit) { return exit.spec.layer; }

}  // namespace

std::string Model::exit_name(int64_t exit) const {
  return exit == kFinalLayer ? "final" : std::to_string(exits.at(static_cast<size_t>(exit)).spec.layer);
}

int64_t Model::exit_depth(int64_t exit) const {
  return exit == kFinalLayer ? backbone.config.layers : exits.at(static_cast<size_t>(exit)).spec.depth();
}

Model load_model(const LoadRequest& request) {
  const checkpoint::ModelFolder folder = checkpoint::ModelFolder::open(request.folder, request.check);
  const std::vector<config::ExitSpec> specs = find_exits(folder, request.exits);
  Model model;
  model.backbone = load_stage(folder, specs, request);
  std::vector<int64_t> own;
  for (const config::ExitSpec& spec : specs) {
    model.exits.emplace_back().spec = spec;
    if (parallel::is_on_stage(spec, model.backbone.first_layer, model.backbone.last_layer())) {
      own.push_back(spec.layer);
    }
  }
  if (!own.empty()) {
    auto loaded = checkpoint::load_exits(folder, model.backbone, own,
                                         checkpoint::compute_dtype(folder, request.precision, at::kCPU));
    std::ranges::move(loaded, std::ranges::find(model.exits, own.front(), layer_of));
  }
  return model;
}

config::ModelConfig check_model(const LoadRequest& request, const parallel::GridSizes& sizes) {
  const checkpoint::ModelFolder folder = checkpoint::ModelFolder::open(request.folder, request.check);
  const config::ModelConfig& config = folder.config();
  find_exits(folder, request.exits);
  parallel::check_tensor_split(config, sizes.tensor, /*sequence_length=*/0);
  if (sizes.pipeline > config.layers) {
    throw base::UserError("{} pipeline stages, but the model in {} has {} layers; use at most {} stages",
                          sizes.pipeline, request.folder.string(), config.layers, config.layers);
  }
  return config;
}

std::vector<config::ExitRule> quality_rules(const LoadRequest& request, double agreement,
                                            config::ExitPolicy policy) {
  constexpr double kSame = 1e-9;
  const auto folder = checkpoint::ModelFolder::open(request.folder, checkpoint::Check::never);
  const config::ExitsConfig& exits = folder.exits();
  if (!request.exits.empty() && request.exits.size() < exits.exits.size()) {
    throw base::UserError("quality levels hold for all exits of {} together; leave --exits out",
                          request.folder.string());
  }
  std::vector<std::string> known;
  for (const config::QualityLevel& level : exits.quality) {
    if (level.policy == policy && std::abs(level.agreement - agreement) < kSame) {
      return level.exits;
    }
    known.push_back(fmt::format("{} (policy {})", level.agreement, config::name_of(level.policy)));
  }
  const std::string there =
      known.empty() ? "it is not calibrated" : fmt::format("it has {}", base::join(known, ", "));
  throw base::UserError(
      "{} has no quality level {} of policy {}: {}; make it with ee-tune calibrate --agreement {}{}",
      request.folder.string(), agreement, config::name_of(policy), there, agreement,
      policy == config::ExitPolicy::gate ? " --gate" : "");
}

void check_gates(const std::filesystem::path& path) {
  const auto folder = checkpoint::ModelFolder::open(path, checkpoint::Check::never);
  folder.exits();
  if (!folder.has_gates()) {
    throw base::UserError("the exits of {} have no gates; fit some with ee-tune calibrate --gate",
                          path.string());
  }
}

std::unique_ptr<tokenizer::Tokenizer> load_tokenizer(const std::filesystem::path& folder,
                                                     const config::ModelConfig& config) {
  return tokenizer::load_model_tokenizer(folder, config.vocab_size);
}

std::unique_ptr<tokenizer::Tokenizer> load_data_tokenizer(const std::filesystem::path& folder,
                                                          const config::ModelConfig& config) {
  return tokenizer::load_data_tokenizer(folder, config.vocab_size, config.eos_tokens);
}

std::vector<int64_t> encode_prompt(const tokenizer::Tokenizer& tokenizer, const std::string& text) {
  std::vector<int64_t> tokens;
  if (tokenizer.adds_bos() && tokenizer.bos()) {
    tokens.push_back(*tokenizer.bos());
  }
  const std::vector<int64_t> encoded = tokenizer.encode(text);
  tokens.insert(tokens.end(), encoded.begin(), encoded.end());
  return tokens;
}

}  // namespace ee::infer
