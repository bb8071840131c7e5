// The temperature at which an exit's probabilities are those of agreeing with the final layer (Guo et al.
// 2017), and the statistics of an output embedding that it takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace ee::eval {

// All [tokens] f32 but where another type is said.
struct HeadStatistics {
  at::Tensor argmax;       // i64; the smallest among equals
  at::Tensor top, second;  // the two largest logits, not divided by any temperature
  at::Tensor log_sum;      // [temperatures, tokens]: log sum of exp(logit / T)
  at::Tensor mean;         // [temperatures, tokens]: mean logit under softmax(logit / T)
  at::Tensor label;        // logits of the labels
};

// rows [tokens, hidden], weight [vocab, hidden]; labels [tokens] i64, or undefined: then `mean` and `label`
// are, too. The logits are made a block of tokens and a chunk of the vocabulary at a time.
HeadStatistics head_statistics(const at::Tensor& rows, const at::Tensor& weight,
                               const std::vector<double>& temperatures, const at::Tensor& labels = {});

// Temperatures between 1/4 and 4 that a curve is sampled at.
std::vector<double> temperature_grid();

// Mean negative log likelihood of the labels over 1 / T, and its slope, at the grid's temperatures.
struct LikelihoodCurve {
  std::vector<double> loss, slope;
};
void add(LikelihoodCurve& curve, const HeadStatistics& statistics);  // sums; means are not needed

// The curve's lowest point within the grid. The loss is convex over 1 / T: its slope changes sign once, and
// between two samples it is taken for a cubic (Hermite).
double best_temperature(const LikelihoodCurve& curve);

}  // namespace ee::eval
