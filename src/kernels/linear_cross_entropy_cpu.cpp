#include "linear_cross_entropy_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace ee::kernels::fused {

namespace {

using tile::Entry;
using tile::kPanelTokens;
using tile::kTileRows;
using tile::PanelState;

constexpr int64_t kCacheBytes = 128 << 10;  // of the weight at a time: a share of the second-level cache

int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// The weight in blocks of rows that stay in cache, as f32 and padded to whole tiles.
class WeightBlocks {
 public:
  explicit WeightBlocks(const at::Tensor& weight)
      : weight_(weight),
        total_(weight.size(0)),
        hidden_(weight.size(1)),
        rows_(std::clamp<int64_t>(kCacheBytes / 4 / hidden_ / kTileRows, 1, 32) * kTileRows) {}

  int64_t count() const { return divide_up(total_, rows_); }
  int64_t rows() const { return rows_; }
  int64_t rows_of(int64_t block) const { return std::min(rows_, total_ - block * rows_); }
  int32_t first(int64_t block) const { return static_cast<int32_t>(block * rows_); }

  // [rows(), hidden]; valid until the next call with the same scratch.
  const float* get(int64_t block, std::vector<float>& scratch) const {
    const int64_t begin = block * rows_ * hidden_, size = rows_of(block) * hidden_;
    const bool is_float = weight_.scalar_type() == at::kFloat;
    if (is_float && rows_of(block) == rows_) return weight_.const_data_ptr<float>() + begin;
    scratch.resize(rows_ * hidden_);
    if (is_float) {
      std::copy_n(weight_.const_data_ptr<float>() + begin, size, scratch.data());
    } else {
      const c10::BFloat16* from = weight_.const_data_ptr<c10::BFloat16>() + begin;
      for (int64_t i = 0; i < size; ++i) scratch[i] = from[i];
    }
    std::fill(scratch.begin() + size, scratch.end(), 0.0f);
    return scratch.data();
  }

 private:
  const at::Tensor& weight_;  // [total, hidden]
  int64_t total_, hidden_, rows_;
};

// hidden [tokens, hidden] -> [panels, hidden, 16], tokens padded with zeros.
at::Tensor pack_panels(const at::Tensor& hidden) {
  const int64_t tokens = hidden.size(0), width = hidden.size(1), panels = divide_up(tokens, kPanelTokens);
  at::Tensor packed = at::empty({panels, width, kPanelTokens}, hidden.options());
  const float* from = hidden.const_data_ptr<float>();
  float* to = packed.data_ptr<float>();
  at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel)
      for (int64_t k = 0; k < width; ++k)
        for (int64_t lane = 0; lane < kPanelTokens; ++lane) {
          const int64_t token = panel * kPanelTokens + lane;
          to[(panel * width + k) * kPanelTokens + lane] = token < tokens ? from[token * width + k] : 0.0f;
        }
  });
  return packed;
}

// How a forward pass is shared by threads: each takes a range of panels if there are enough of them,
// otherwise a slice of the vocabulary.
struct Division {
  int64_t panels, blocks, tasks, slices;

  Division(int64_t panels, int64_t blocks)
      : panels(panels),
        blocks(blocks),
        tasks(std::min<int64_t>(at::get_num_threads(), std::max(panels, blocks))),
        slices(panels >= tasks ? 1 : tasks) {}

  bool by_panels() const { return slices == 1; }
};

class Forward {
 public:
  Forward(const at::Tensor& hidden, const at::Tensor& weight, double temperature, double filter,
          Candidates& candidates)
      : blocks_(weight),
        width_(hidden.size(1)),
        panels_(pack_panels(hidden)),
        division_(panels_.size(0), blocks_.count()),
        scale_(static_cast<float>(std::numbers::log2e / temperature)),
        collects_(filter > 0),
        log2_filter_(collects_ ? static_cast<float>(std::log2(filter)) : 0),
        candidates_(candidates),
        states_(division_.slices * division_.panels) {
    candidates_.tokens = hidden.size(0);
    candidates_.slices = division_.slices;
    candidates_.count.assign(division_.slices * candidates_.tokens, 0);
    if (collects_)
      candidates_.entries =
          std::make_unique_for_overwrite<Entry[]>(candidates_.count.size() * Candidates::kStride);
  }

  Softmax run(const at::Tensor& targets) {
    start(targets.const_data_ptr<int64_t>());
    at::parallel_for(0, division_.tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const auto share = [&](int64_t of) {
          return std::pair{of * task / division_.tasks, of * (task + 1) / division_.tasks};
        };
        if (division_.by_panels())
          walk(0, share(division_.panels), {0, division_.blocks});
        else
          walk(task, {0, division_.panels}, share(division_.blocks));
      }
    });
    return finish(targets.options());
  }

 private:
  using Range = std::pair<int64_t, int64_t>;

  PanelState& state(int64_t slice, int64_t panel) { return states_[slice * division_.panels + panel]; }

  void start(const int64_t* targets) {
    for (int64_t i = 0; i < std::ssize(states_); ++i)
      for (int64_t lane = 0; lane < kPanelTokens; ++lane) {
        const int64_t token = i % division_.panels * kPanelTokens + lane;
        states_[i].max[lane] = -std::numeric_limits<float>::infinity();
        states_[i].sum[lane] = states_[i].target_logit[lane] = 0;
        states_[i].argmax[lane] = 0;
        states_[i].target[lane] =
            token < candidates_.tokens ? static_cast<int32_t>(std::max<int64_t>(targets[token], -1)) : -1;
      }
  }

  void walk(int64_t slice, Range panels, Range blocks) {
    std::vector<float> scratch, logits(blocks_.rows() * kPanelTokens);
    for (int64_t block = blocks.first; block < blocks.second; ++block) {
      const float* rows = blocks_.get(block, scratch);
      const int count = static_cast<int>(blocks_.rows_of(block));
      for (int64_t panel = panels.first; panel < panels.second; ++panel) {
        const float* tokens = panels_.const_data_ptr<float>() + panel * width_ * kPanelTokens;
        for (int64_t r = 0; r < count; r += kTileRows)
          tile::multiply(rows + r * width_, tokens, width_, logits.data() + r * kPanelTokens);
        PanelState& softmax = state(slice, panel);
        for (int half : {0, 1}) {
          tile::update(logits.data(), blocks_.first(block), count, scale_, half, softmax);
          if (collects_) collect(logits.data(), blocks_.first(block), count, half, slice, panel);
        }
      }
    }
  }

  void collect(const float* logits, int32_t first, int count, int half, int64_t slice, int64_t panel) {
    const PanelState& softmax = state(slice, panel);
    tile::collect(logits, count, scale_, log2_filter_, half, softmax,
                  [&](int64_t lane, int row, float logit) {
                    if (softmax.target[lane] < 0) return;  // ignored, or padding of the panel
                    const int64_t token = panel * kPanelTokens + lane;
                    int32_t& size = candidates_.count[slice * candidates_.tokens + token];
                    if (size == Candidates::kOverflow) return;
                    Entry* list = candidates_.list(slice, token);
                    if (size == Candidates::kCapacity) {
                      size = prune(list, softmax.max[lane], softmax.sum[lane]);
                      if (size == Candidates::kOverflow) return;
                    }
                    list[size++] = {first + row, logit};
                  });
  }

  // Early rows passed a weaker bound than today's. Without a real gain the token is given up as too flat.
  int32_t prune(Entry* list, float max, float sum) const {
    const float least = (std::log2(sum) + log2_filter_ - 1e-4f) / scale_;
    const Entry* end = std::remove_if(list, list + Candidates::kCapacity,
                                      [&](const Entry& entry) { return !(entry.value - max >= least); });
    const auto left = static_cast<int32_t>(end - list);
    return left > Candidates::kCapacity * 3 / 4 ? Candidates::kOverflow : left;
  }

  Softmax finish(const at::TensorOptions& long_options) {
    const at::TensorOptions float_options = long_options.dtype(at::kFloat);
    Softmax out;
    for (at::Tensor* tensor : {&out.max, &out.sum, &out.log_sum, &out.target_logit})
      *tensor = at::empty({candidates_.tokens}, float_options);
    out.argmax = at::empty({candidates_.tokens}, long_options);
    for (int64_t token = 0; token < candidates_.tokens; ++token) {
      const int64_t panel = token / kPanelTokens, lane = token % kPanelTokens;
      float max = state(0, panel).max[lane], sum = state(0, panel).sum[lane];
      float target_logit = state(0, panel).target_logit[lane];
      int32_t argmax = state(0, panel).argmax[lane];
      for (int64_t slice = 1; slice < division_.slices; ++slice) {
        const PanelState& other = state(slice, panel);
        const float both = std::max(max, other.max[lane]);
        if (other.max[lane] > max) argmax = other.argmax[lane];
        sum = sum * std::exp2((max - both) * scale_) +
              other.sum[lane] * std::exp2((other.max[lane] - both) * scale_);
        target_logit += other.target_logit[lane];  // 0 in all slices but the target's
        max = both;
      }
      out.max.data_ptr<float>()[token] = max;
      out.sum.data_ptr<float>()[token] = sum;
      out.log_sum.data_ptr<float>()[token] = std::log(sum);
      out.target_logit.data_ptr<float>()[token] = target_logit;
      out.argmax.data_ptr<int64_t>()[token] = argmax;
    }
    return out;
  }

  WeightBlocks blocks_;
  int64_t width_;
  at::Tensor panels_;  // [panels, hidden, 16]
  Division division_;
  float scale_;  // log2(e) / temperature
  bool collects_;
  float log2_filter_;
  Candidates& candidates_;
  std::vector<PanelState> states_;  // [slices, panels]
};

// Puts the target's gradient into an ascending list of a token.
int32_t insert_target(Entry* list, int32_t size, Entry target) {
  Entry* at = std::lower_bound(list, list + size, target,
                               [](const Entry& a, const Entry& b) { return a.index < b.index; });
  std::move_backward(at, list + size, list + size + 1);
  *at = target;
  return size + 1;
}

}  // namespace

bool supported() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#elif defined(__aarch64__)
  return true;
#else
  return false;
#endif
}

Softmax forward(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                double temperature, double filter, Candidates& candidates) {
  return Forward(hidden, weight, temperature, filter, candidates).run(targets);
}

Settled settle(Candidates& candidates, const Softmax& softmax, const at::Tensor& targets,
               const at::Tensor& scale, int64_t rows, double temperature, double filter) {
  const float* max = softmax.max.const_data_ptr<float>();
  const float* log_sum = softmax.log_sum.const_data_ptr<float>();
  const float* target_logit = softmax.target_logit.const_data_ptr<float>();
  const float* scales = scale.const_data_ptr<float>();
  const int64_t* target = targets.const_data_ptr<int64_t>();
  const auto inverse = static_cast<float>(1.0 / temperature), least = static_cast<float>(filter);
  const int64_t tokens = candidates.tokens, slices = candidates.slices;
  std::vector<uint8_t> overflowed(tokens, 0);
  Settled out{.sum = at::zeros({tokens}, scale.options().dtype(at::kDouble)), .overflowed = {}};

  const auto settle_token = [&](int64_t token) {
    const auto size = [&](int64_t slice) -> int32_t& { return candidates.count[slice * tokens + token]; };
    const auto probability = [&](float logit) {
      return std::exp((logit - max[token]) * inverse - log_sum[token]);
    };
    for (int64_t slice = 0; slice < slices; ++slice)
      overflowed[token] |= size(slice) == Candidates::kOverflow;
    overflowed[token] &= scales[token] != 0;
    bool has_target = false;
    double sum = 0;
    for (int64_t slice = 0; slice < slices; ++slice) {
      if (scales[token] == 0 || overflowed[token]) size(slice) = 0;
      Entry* list = candidates.list(slice, token);
      int32_t kept = 0;
      for (int32_t i = 0; i < size(slice); ++i) {
        const bool is_target = list[i].index == target[token];
        const float p = probability(list[i].value);
        if (!(p >= least) && !is_target) continue;
        list[kept++] = {list[i].index, scales[token] * inverse * (p - is_target)};
        sum += list[kept - 1].value;
        has_target |= is_target;
      }
      size(slice) = kept;
    }
    if (overflowed[token] || scales[token] == 0) return;
    if (!has_target && target[token] < rows) {
      const float gradient = scales[token] * inverse * (probability(target_logit[token]) - 1);
      size(0) =
          insert_target(candidates.list(0, token), size(0), {static_cast<int32_t>(target[token]), gradient});
      sum += gradient;
    }
    out.sum.data_ptr<double>()[token] = sum;
  };
  at::parallel_for(0, tokens, 1, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) settle_token(token);
  });

  for (int64_t token = 0; token < tokens; ++token)
    if (overflowed[token]) out.overflowed.push_back(token);
  return out;
}

void add_hidden_gradient(const Candidates& gradients, const at::Tensor& spread, const at::Tensor& weight,
                         const at::Tensor& grad_hidden) {
  const WeightBlocks blocks(weight);
  const int64_t width = weight.size(1), tokens = gradients.tokens, lists = gradients.slices * tokens;
  const float* spread_of = spread.const_data_ptr<float>();
  float* out = grad_hidden.data_ptr<float>();
  std::vector<Entry> all_rows(blocks.rows());
  for (int64_t r = 0; r < blocks.rows(); ++r) all_rows[r] = {static_cast<int32_t>(r), 1.0f};
  at::parallel_for(0, tokens, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch, row_sum(width, 0.0f);
    std::vector<int32_t> done(lists, 0);  // entries of each list that lie in earlier blocks
    for (int64_t block = 0; block < blocks.count(); ++block) {
      const float* rows = blocks.get(block, scratch);
      const int32_t first = blocks.first(block), last = first + static_cast<int32_t>(blocks.rows_of(block));
      tile::add_rows(row_sum.data(), rows, width, 0, all_rows.data(), last - first);
      for (int64_t token = begin; token < end; ++token)
        for (int64_t list = token; list < lists; list += tokens) {
          const Entry* entries = gradients.entries.get() + list * Candidates::kStride;
          int32_t stop = done[list];
          while (stop < gradients.count[list] && entries[stop].index < last) ++stop;
          tile::add_rows(out + token * width, rows, width, first, entries + done[list], stop - done[list]);
          done[list] = stop;
        }
    }
    for (int64_t token = begin; token < end; ++token) {
      const Entry common{0, spread_of[token]};
      tile::add_rows(out + token * width, row_sum.data(), width, 0, &common, 1);
    }
  });
}

void add_weight_gradient(const Candidates& gradients, const at::Tensor& spread, const at::Tensor& hidden,
                         const at::Tensor& weight_grad) {
  const WeightBlocks blocks(weight_grad);
  const int64_t width = hidden.size(1), lists = std::ssize(gradients.count);
  const float* states = hidden.const_data_ptr<float>();
  float* out = weight_grad.data_ptr<float>();
  const int64_t threads = at::get_num_threads();
  std::vector<Entry> shares;
  for (int64_t token = 0; token < gradients.tokens; ++token)
    shares.push_back({static_cast<int32_t>(token), spread.const_data_ptr<float>()[token]});
  std::vector<float> common(width, 0.0f);  // goes to every row
  tile::add_rows(common.data(), states, width, 0, shares.data(), gradients.tokens);
  const Entry once{0, 1.0f};
  // Every thread walks all lists and takes each threads-th block: frequent tokens gather at the vocabulary's
  // beginning, a division into ranges would be uneven. The order of a row's sum is the order of tokens.
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> done(lists, 0);
    std::vector<std::vector<Entry>> by_row(blocks.rows());
    for (int64_t block = 0; block < blocks.count(); ++block) {
      const bool own = begin <= block % threads && block % threads < end;
      const int32_t first = blocks.first(block), last = first + static_cast<int32_t>(blocks.rows_of(block));
      for (int64_t list = 0; list < lists; ++list) {
        const Entry* entries = gradients.entries.get() + list * Candidates::kStride;
        for (int32_t& e = done[list]; e < gradients.count[list] && entries[e].index < last; ++e)
          if (own)
            by_row[entries[e].index - first].push_back(
                {static_cast<int32_t>(list % gradients.tokens), entries[e].value});
      }
      for (int64_t r = 0; own && r < last - first; ++r) {
        tile::add_rows(out + (first + r) * width, states, width, 0, by_row[r].data(), std::ssize(by_row[r]));
        tile::add_rows(out + (first + r) * width, common.data(), width, 0, &once, 1);
        by_row[r].clear();
      }
    }
  });
}

}  // namespace ee::kernels::fused
