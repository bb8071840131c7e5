// Layers for `ee-convert attach --exit-layers auto:N`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "ee/config/exit_spec.h"
#include "ee/config/model_config.h"
#include "ee/train/attach_fitted.h"

namespace ee::cli {

struct PlaceRequest {
  std::filesystem::path source;   // of the model
  std::filesystem::path working;  // name for a folder that is there while it works
  int64_t count = 0;              // exits
  double agreement = 0.95;        // wanted share of tokens that are the final layer's
  config::ExitSpec spec = {};     // of the exits to come: what looking at one costs
  std::string plot = {};          // SVG file to write; empty: none
};

// Fits a linear exit behind every layer but the last in one pass over the text, measures them on sequences
// drawn from it, prints what each layer would bring, and returns the layers that together save the most.
std::vector<int64_t> place_layers(const config::ModelConfig& model, const PlaceRequest& request,
                                  const train::FitText& text);

}  // namespace ee::cli
