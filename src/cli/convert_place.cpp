#include "convert_place.h"

#include <fmt/format.h>

#include <algorithm>

#include "ee/base/error.h"
#include "ee/base/file.h"
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

}  // namespace

std::vector<int64_t> place_layers(const config::ModelConfig& model, const PlaceRequest& request,
                                  const train::FitText& text) {
  if (request.count >= model.layers)  // before minutes of work
    throw base::UserError("{} exits are to be placed, but there are 1 to {} layers for them", request.count,
                          model.layers - 1);
  const eval::DrawData draw{.paths = text.paths,
                            .sequences = kSequences,
                            .sequence_length = std::min(kSequenceLength, config::text_limit(model).tokens),
                            .seed = kDrawSeed};
  eval::Sequences sequences;
  if (std::filesystem::is_directory(request.source)) {  // a GGUF file has a tokenizer once it is converted
    sequences = eval::draw_sequences(draw, model, *infer::load_data_tokenizer(request.source, model));
  }
  const base::AtomicDirectory passing(request.working);  // is never committed: goes again
  const std::filesystem::path folder = passing.path() / "model";
  fmt::print("fitting an exit behind each of the first {} layers\n", model.layers - 1);
  train::attach_fitted(
      {.source = request.source, .output = folder, .exits = one_behind_each_layer(model.layers)}, text);
  const infer::Model everywhere =
      infer::load_model({.folder = folder,
                         .precision = config::Precision::stored,
                         .exits = {},
                         .check = checkpoint::Check::never});  // was made just now
  if (sequences.empty()) {
    sequences = eval::draw_sequences(draw, model, *infer::load_data_tokenizer(folder, model));
  }
  const eval::PlacementOptions options{.count = request.count,
                                       .layers = model.layers,
                                       .exit_cost = cost_in_layers(model, request.spec),
                                       .agreement = request.agreement};
  const auto placement = eval::place_exits(everywhere, sequences, options);
  fmt::print("{}", to_table(placement, options));
  if (!request.plot.empty()) base::write_file_atomically(request.plot, to_svg(placement, options));
  return placement.layers;
}

}  // namespace ee::cli
