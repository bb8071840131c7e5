// Temperatures, gates and quality levels of a model's exits, found on text that they were not trained on.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ee/eval/evaluate.h"
#include "ee/eval/quality.h"
#include "ee/infer/model.h"

namespace ee::eval {

struct CalibrationOptions {
  std::vector<double> agreements = {0.95};  // each in (0, 1)
  double confidence = 0.95;                 // in (0, 1)
  bool gates = false;                       // fit gates, and levels of both policies
};

struct ExitCalibration {
  int64_t layer = 0;
  double temperature_before = 1.0, temperature = 1.0;
  double error_before = 0.0,
         error = 0.0;  // expected calibration error against agreement with the final layer
  double agreement = 0.0;
  std::vector<Selection> selections = {};  // by largest probability, then by gate if there is one
};

// All but the temperatures and gates is measured on the tokens of the test part.
struct Calibration {
  std::vector<double> agreements = {};
  int64_t fit_tokens = 0;  // 0: nothing was fitted
  int64_t test_sequences = 0, test_tokens = 0;
  std::vector<ExitCalibration> exits = {};
  std::vector<LevelResult> levels = {};

  std::vector<config::QualityLevel> quality() const;
};

using Progress = std::function<void(int64_t done, int64_t of)>;  // sequences

// Changes temperatures and gates of model.exits. `sequences` are split, in their order, into three parts:
// temperatures and gates are fitted on the first, maps from score to agreement on the second, levels tested
// on the third. They should be drawn at random from the text. UserError: agreements or confidence out of
// range, fewer sequences than kFewestForCalibration.
inline constexpr size_t kFewestForCalibration = 2 * kFewestSequences;
void check_calibration(const CalibrationOptions& options, size_t sequences);  // the same, without a model
Calibration calibrate(infer::Model& model, const Sequences& sequences, const CalibrationOptions& options,
                      const Progress& progress = {});

// Fits gates only, on all of the sequences.
void fit_gates(infer::Model& model, const Sequences& sequences);

// What a calibrated model does on other text: nothing is fitted, all sequences are the test part. The bounds
// are those of this text.
Calibration measure(const infer::Model& model, const std::vector<config::QualityLevel>& levels,
                    const Sequences& sequences, const Progress& progress = {});

std::string to_table(const Calibration& calibration);

}  // namespace ee::eval
