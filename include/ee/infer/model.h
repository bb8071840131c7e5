// A model folder made ready for generating and scoring.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ee/checkpoint/integrity.h"
#include "ee/config/tune_options.h"
#include "ee/exits/exit_head.h"
#include "ee/model/backbone.h"
#include "ee/parallel/rank_grid.h"
#include "ee/tokenizer/tokenizer.h"

namespace ee::infer {

struct LoadRequest {
  std::filesystem::path folder;
  config::Precision precision = config::Precision::stored;
  std::vector<int64_t> exits;  // their layers; empty: all the folder has
  // On a grid of processes: this rank's slices of the layers and exits of pipeline stage `stage`, no more.
  parallel::TensorRanks tensor = {};
  int64_t stage = 0, stages = 1;
  checkpoint::Check check = checkpoint::Check::unless_remembered;  // of the tensors' checksums
};

struct Model {
  model::Backbone backbone;            // on a pipeline stage only its layers
  std::vector<exits::ExitHead> exits;  // ascending by layer; empty for a folder without exits. Those of other
                                       // stages have a spec and no tensors

  std::string exit_name(int64_t exit) const;  // "10", or "final" for kFinalLayer
  int64_t exit_depth(int64_t exit) const;     // how many layers run before it can be evaluated
};

// UserError: as checkpoint::ModelFolder says; a requested exit that the folder does not have.
Model load_model(const LoadRequest& request);

// The same look at the folder without reading weights, for every process of a grid before they meet.
// UserError also: tensor ranks that the model's sizes do not allow, more pipeline stages than layers.
config::ModelConfig check_model(const LoadRequest& request, const parallel::GridSizes& sizes);

// The rules that the folder's calibration found for a wanted agreement; compares no checksums. UserError: it
// has no such level (with those that there are), or some of its exits are left out.
std::vector<config::ExitRule> quality_rules(const LoadRequest& request, double agreement,
                                            config::ExitPolicy policy);

// UserError: the folder's exits have no gates.
void check_gates(const std::filesystem::path& folder);

// The folder's tokenizer. UserError: none there, or it knows more tokens than the model's vocabulary.
std::unique_ptr<tokenizer::Tokenizer> load_tokenizer(const std::filesystem::path& folder,
                                                     const config::ModelConfig& config);

// The same for reading data, which may be ids: where the folder has no tokenizer, what needs one fails.
std::unique_ptr<tokenizer::Tokenizer> load_data_tokenizer(const std::filesystem::path& folder,
                                                          const config::ModelConfig& config);

// Text to the ids a model starts from: with BOS in front if the tokenizer adds one.
std::vector<int64_t> encode_prompt(const tokenizer::Tokenizer& tokenizer, const std::string& text);

}  // namespace ee::infer
