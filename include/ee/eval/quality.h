// From scores of exits to thresholds that keep a wanted agreement with the final layer (CALM, arXiv
// 2207.07061; learn then test, arXiv 2110.01052). Numbers only, no model.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ee/config/exit_spec.h"

namespace ee::eval {

// What one exit says of the tokens of several sequences, one sequence behind the other.
struct ExitScores {
  int64_t layer = 0, depth = 0;
  std::vector<float> score = {};    // what a policy compares with the threshold
  std::vector<float> before = {};   // policy gate: the gate in front of the output embedding; otherwise empty
  std::vector<uint8_t> agree = {};  // whether the exit's most probable token is the final layer's
};

struct ScoreTable {
  std::vector<int64_t> tokens = {};    // of each sequence
  std::vector<ExitScores> exits = {};  // ascending by layer
};

// What given rules do to the tokens of a table.
struct Outcome {
  // Of each sequence. If all are equally long: the share of its tokens that leave and disagree. Otherwise
  // numbers whose mean is that share of all tokens, and whose spread is that of this ratio of two sums:
  // R + (wrong_s - R tokens_s) / mean(tokens), with R the share (Cochran, Sampling Techniques, section 6.3).
  std::vector<double> risks = {};
  std::vector<double> leave = {};        // of each exit: share of all tokens that leave there
  std::vector<double> leave_agree = {};  // and, of all tokens, that leave there and agree
  double heads = 0.0;                    // exits' output embeddings evaluated per token

  double risk() const;     // mean of risks
  double leaving() const;  // sum of leave
};
Outcome apply_rules(const ScoreTable& table, const std::vector<config::ExitRule>& rules);

// Upper confidence bound of the mean that independent, equally distributed numbers have: Student's t with
// Johnson's (1978) correction for their skewness. It holds asymptotically. Bounds that hold for any
// distribution on [0, 1] (Hoeffding, betting) reach 5 % with no less than 59 sequences even if none of their
// tokens is wrong; but a sequence's risk is a mean over hundreds of tokens, far from the worst case.
// 1 for fewer than kFewestSequences.
inline constexpr size_t kFewestSequences = 16;
double upper_bound(std::span<const double> values, double confidence);

// A step of the monotone map from score to probability of agreement that fits best in the least-squares sense
// (isotonic regression): from `score` on the probability is `agreement`. Ascending.
struct MapStep {
  double score, agreement;
};
std::vector<MapStep> monotone_map(std::span<const float> score, std::span<const uint8_t> agree);

// The first score from which the map promises `level`; 1 (never) if none does.
double threshold_at(std::span<const MapStep> map, double level);

struct LevelResult {
  config::QualityLevel level = {};
  Outcome outcome = {};  // on the table that was tested on
  double bound = 0.0;    // upper bound of the risk there
};

// All exits share one level t: each makes the tokens for which its map, fitted on `fit`, promises at least t.
// From strict to loose, t is tested on `test` until the upper bound of the risk exceeds 1 - agreement: tested
// in a fixed order, the last level that passed keeps the confidence of a single test. The sequence, not
// the token, is the unit of independence. If none passes, no threshold lets any token leave.
LevelResult find_level(const ScoreTable& fit, const ScoreTable& test, double agreement, double confidence,
                       config::ExitPolicy policy);

// Mean distance between confidence and agreement over 15 bins of equal width (Guo et al. 2017).
double expected_calibration_error(std::span<const float> confidence, std::span<const uint8_t> agree);

// How well a score picks the tokens that agree: let leave those with the highest scores.
struct Selection {
  double area = 0.0;  // under the curve of agreement among those that leave, over the share leaving
  std::vector<double> shares = {};  // the largest share that leaves at each wanted agreement
};
Selection selection(std::span<const float> score, std::span<const uint8_t> agree,
                    std::span<const double> agreements);

}  // namespace ee::eval
