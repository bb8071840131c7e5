#include "convert_place.h"

#include <fmt/format.h>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/data/packing.h"
#include "ee/eval/evaluate.h"
#include "ee/eval/placement.h"

namespace ee::cli {

namespace {

constexpr int64_t kSequences = 36, kSequenceLength = 128;
constexpr uint64_t kDrawSeed = 4321;  // another order than the fit's

double elements(const config::ModelConfig& model, const config::ExitSpec& spec) {
  return static_cast<double>(exits::parameter_count(model, spec));
}

// Weights read for a token: decoding is bound by them, and computing goes with them.
double cost_in_layers(const config::ModelConfig& model, config::ExitSpec spec) {
  const double head = static_cast<double>(model.vocab_size * model.hidden_size);
  spec.head = config::HeadKind::shared;
  const double layer = elements(model, {.layer = 1, .kind = config::ExitKind::layer});
  return (head + elements(model, spec)) / layer;
}

std::vector<config::ExitSpec> one_behind_each_layer(int64_t layers) {
  std::vector<config::ExitSpec> specs;
  for (int64_t layer = 1; layer < layers; ++layer) {
    config::ExitSpec spec{.layer = layer, .kind = config::ExitKind::linear, .init = config::InitKind::fit};
    config::set_defaults_of_kind(spec);
    specs.push_back(spec);
  }
  return specs;
}

std::vector<std::vector<int64_t>> draw_sequences(const infer::Model& model,
                                                 const std::filesystem::path& folder,
                                                 const train::FitText& text) {
  constexpr int64_t kAll = int64_t{1} << 40;
  const auto tokenizer = infer::load_tokenizer(folder, model.backbone.config);
  std::vector<std::vector<int64_t>> all, drawn;
  for (const std::string& path : text.paths) {
    auto some = eval::read_sequences({.path = path, .sequences = kAll, .sequence_length = kSequenceLength},
                                     model.backbone.config, *tokenizer);
    all.insert(all.end(), some.begin(), some.end());
  }
  const auto count = static_cast<int64_t>(all.size());
  const data::Permutation order(count, kDrawSeed);
  for (int64_t i = 0; i < std::min(count, kSequences); ++i)
    drawn.push_back(std::move(all[static_cast<size_t>(order[i])]));
  return drawn;
}

}  // namespace

std::vector<int64_t> place_layers(const config::ModelConfig& model, const PlaceRequest& request,
                                  const train::FitText& text) {
  if (request.count >= model.layers)  // before minutes of work
    throw base::UserError("{} exits are to be placed, but there are 1 to {} layers for them", request.count,
                          model.layers - 1);
  const base::TemporaryFolder folder(request.working);
  fmt::print("fitting an exit behind each of the first {} layers\n", model.layers - 1);
  train::attach_fitted(
      {.source = request.source, .output = folder.path(), .exits = one_behind_each_layer(model.layers)},
      text);
  const infer::Model everywhere =
      infer::load_model({.folder = folder.path(), .precision = config::Precision::stored, .exits = {}});
  const eval::PlacementOptions options{.count = request.count,
                                       .layers = model.layers,
                                       .exit_cost = cost_in_layers(model, request.spec),
                                       .agreement = request.agreement};
  const auto placement =
      eval::place_exits(everywhere, draw_sequences(everywhere, folder.path(), text), options);
  fmt::print("{}", to_table(placement, options));
  return placement.layers;
}

}  // namespace ee::cli
