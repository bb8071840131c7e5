// A model folder made ready for generating and scoring.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ee/config/tune_options.h"
#include "ee/exits/exit_head.h"
#include "ee/model/backbone.h"
#include "ee/tokenizer/tokenizer.h"

namespace ee::infer {

struct LoadRequest {
  std::filesystem::path folder;
  config::Precision precision = config::Precision::stored;
  std::vector<int64_t> exits;  // their layers; empty: all the folder has
};

struct Model {
  model::Backbone backbone;
  std::vector<exits::ExitHead> exits;  // ascending by layer; empty for a folder without exits

  std::string exit_name(int64_t exit) const;  // "10", or "final" for kFinalLayer
  int64_t exit_depth(int64_t exit) const;     // how many layers run before it can be evaluated
};

// UserError: as checkpoint::ModelFolder says; a requested exit that the folder does not have.
Model load_model(const LoadRequest& request);

// The folder's tokenizer. UserError: none there, or it knows more tokens than the model's vocabulary.
std::unique_ptr<tokenizer::Tokenizer> load_tokenizer(const std::filesystem::path& folder,
                                                     const config::ModelConfig& config);

// Text to the ids a model starts from: with BOS in front if the tokenizer adds one.
std::vector<int64_t> encode_prompt(const tokenizer::Tokenizer& tokenizer, const std::string& text);

}  // namespace ee::infer
