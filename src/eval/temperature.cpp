#include "temperature.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace ee::eval {

namespace {

constexpr int64_t kBlock = 128;   // tokens, by one thread
constexpr int64_t kChunk = 4096;  // of the vocabulary; the logits of both stay in the cache
constexpr int kSteps = 6;         // temperatures of the grid to either side of 1
constexpr float kLowest = std::numeric_limits<float>::lowest();

// Adds a chunk of logits [tokens, n], ids `first`.., to the statistics of its tokens. Changes the logits.
// `log_sum` and `mean` hold plain sums of exp((logit - top) / T) and of logit - top times that.
void add_chunk(HeadStatistics& sum, at::Tensor logits, int64_t first, const std::vector<double>& temperatures,
               const at::Tensor& labels) {
  const auto [chunk_top, chunk_argmax] = logits.max(1);
  const at::Tensor top = at::maximum(sum.top, chunk_top);
  const at::Tensor shifted = logits - top.unsqueeze(1);
  for (size_t k = 0; k < temperatures.size(); ++k) {
    const auto row = static_cast<int64_t>(k);
    const at::Tensor step = sum.top - top;  // <= 0: the sums so far are relative to the old top
    const at::Tensor scale = (step / temperatures[k]).exp_();
    const at::Tensor old = sum.log_sum[row] * scale;
    at::Tensor powers = (shifted / temperatures[k]).exp_();
    if (labels.defined()) {
      // The first chunk has no old top: its step is endless and its sums are 0.
      sum.mean[row].copy_(sum.mean[row] * scale + old * step.clamp_min(-1e30f));
    }
    sum.log_sum[row].copy_(old + powers.sum(1));
    if (labels.defined()) {
      sum.mean[row].add_(powers.mul_(shifted).sum(1));
    }
  }
  if (labels.defined()) {
    const at::Tensor column = labels - first;
    const at::Tensor inside = column.ge(0).logical_and(column.lt(logits.size(1)));
    const at::Tensor found = logits.gather(1, column.clamp(0, logits.size(1) - 1).unsqueeze(1)).squeeze(1);
    sum.label.copy_(at::where(inside, found, sum.label));
  }
  logits.scatter_(1, chunk_argmax.unsqueeze(1), kLowest);
  const at::Tensor chunk_second = std::get<0>(logits.max(1));
  sum.second.copy_(at::maximum(at::maximum(sum.second, chunk_second), at::minimum(sum.top, chunk_top)));
  sum.argmax.copy_(at::where(chunk_top.gt(sum.top), chunk_argmax + first, sum.argmax));
  sum.top.copy_(top);
}

// The part of a block of tokens: views.
HeadStatistics part(const HeadStatistics& whole, int64_t begin, int64_t count) {
  const auto cut = [&](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.narrow(-1, begin, count) : tensor;
  };
  return {cut(whole.argmax),  cut(whole.top),  cut(whole.second),
          cut(whole.log_sum), cut(whole.mean), cut(whole.label)};
}

}  // namespace

HeadStatistics head_statistics(const at::Tensor& rows, const at::Tensor& weight,
                               const std::vector<double>& temperatures, const at::Tensor& labels) {
  const int64_t tokens = rows.size(0), vocab = weight.size(0);
  const auto count = static_cast<int64_t>(temperatures.size());
  HeadStatistics all{.argmax = at::zeros({tokens}, at::kLong),
                     .top = at::full({tokens}, kLowest),
                     .second = at::full({tokens}, kLowest),
                     .log_sum = at::zeros({count, tokens}),
                     .mean = labels.defined() ? at::zeros({count, tokens}) : at::Tensor(),
                     .label = labels.defined() ? at::zeros({tokens}) : at::Tensor()};
  const auto read_block = [&](int64_t begin) {
    const int64_t size = std::min(kBlock, tokens - begin);
    const at::Tensor block = rows.narrow(0, begin, size);
    HeadStatistics sums = part(all, begin, size);
    for (int64_t first = 0; first < vocab; first += kChunk) {
      const at::Tensor chunk = weight.narrow(0, first, std::min(kChunk, vocab - first));
      add_chunk(sums, at::matmul(block, chunk.t()).to(at::kFloat), first, temperatures,
                labels.defined() ? labels.narrow(0, begin, size) : labels);
    }
  };
  at::parallel_for(0, (tokens + kBlock - 1) / kBlock, 1, [&](int64_t first, int64_t end) {
    const c10::NoGradGuard no_grad;  // known to each thread for itself
    for (int64_t i = first; i < end; ++i) {
      read_block(i * kBlock);
    }
  });
  if (labels.defined()) {
    all.mean.div_(all.log_sum).add_(all.top);
  }
  const at::Tensor inverse = at::tensor(temperatures, at::kFloat).reciprocal().unsqueeze(1);
  all.log_sum.log_().add_(inverse * all.top);
  return all;
}

std::vector<double> temperature_grid() {
  std::vector<double> grid;
  for (int step = -kSteps; step <= kSteps; ++step) {
    grid.push_back(std::exp2(2.0 * step / kSteps));
  }
  return grid;
}

void add(LikelihoodCurve& curve, const HeadStatistics& statistics) {
  const std::vector<double> grid = temperature_grid();
  curve.loss.resize(grid.size());
  curve.slope.resize(grid.size());
  for (size_t k = 0; k < grid.size(); ++k) {
    const auto row = static_cast<int64_t>(k);
    curve.loss[k] += (statistics.log_sum[row] - statistics.label / grid[k]).sum(at::kDouble).item<double>();
    curve.slope[k] += (statistics.mean[row] - statistics.label).sum(at::kDouble).item<double>();
  }
}

double best_temperature(const LikelihoodCurve& curve) {
  const std::vector<double> grid = temperature_grid();  // ascending: 1 / T descends
  const auto& slope = curve.slope;
  if (slope.front() <= 0) {
    return grid.front();  // the loss still falls at the largest 1 / T
  }
  size_t right = 1;  // the first temperature at which the loss falls with 1 / T
  while (right < grid.size() && slope[right] > 0) {
    ++right;
  }
  if (right == grid.size()) {
    return grid.back();
  }
  // From a = 1 / grid[right] to b = 1 / grid[right - 1] the slope goes from below 0 to above.
  const double a = 1 / grid[right], b = 1 / grid[right - 1], width = b - a;
  const double rise = (curve.loss[right - 1] - curve.loss[right]) / width;
  const double from = slope[right], to = slope[right - 1];
  double low = 0, high = 1;
  for (int i = 0; i < 50; ++i) {
    const double x = (low + high) / 2;
    const double at_x = from + 2 * x * (3 * rise - 2 * from - to) + 3 * x * x * (from + to - 2 * rise);
    (at_x < 0 ? low : high) = x;
  }
  return 1 / (a + width * low);
}

}  // namespace ee::eval
