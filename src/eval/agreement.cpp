#include "agreement.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "ee/exits/exit_gate.h"
#include "ee/infer/engine.h"
#include "ee/kernels/linear_cross_entropy.h"
#include "heads.h"

namespace ee::eval {

namespace {

// One pass over one batch at one exit; `agree` holds the exit's argmax until the final layer's is known.
ExitOpinions opinions_of(const infer::Model& model, const SequenceBatch& batch, const HeadRows& head,
                         double before, bool keep_input) {
  std::vector<double> temperatures = {head.temperature};
  if (before != head.temperature) {
    temperatures.push_back(before);
  }
  const HeadStatistics heads = head_statistics(head.rows, head.weight, temperatures);
  check_finite(model, batch, head.exit, heads.top);
  ExitOpinions said;
  said.log_top = heads.top / head.temperature - heads.log_sum[0];
  said.log_margin = (heads.top - heads.second) / head.temperature;
  said.confidence_before = (heads.top / before - heads.log_sum[-1]).exp();
  said.agree = heads.argmax;
  const at::Tensor& gate = model.exits.at(static_cast<size_t>(head.exit)).gate;
  if (!keep_input && !gate.defined()) {
    return said;
  }
  const at::Tensor input = exits::gate_input(head.rows);
  if (gate.defined()) {
    said.gate_before = exits::gate_before(gate, input);
    said.gate_after = exits::gate_after(gate, input, said.log_top, said.log_margin);
    check_finite(model, batch, head.exit, said.gate_before + said.gate_after, infer::NotFinite::Part::gate);
  }
  if (keep_input) {
    said.input = input;
  }
  return said;
}

at::Tensor final_argmax(const infer::Model& model, const SequenceBatch& batch, const HeadRows& head) {
  const HeadStatistics statistics = head_statistics(head.rows, head.weight, {});
  check_finite(model, batch, head.exit, statistics.top);
  return statistics.argmax;
}

ExitOpinions joined(const std::vector<ExitOpinions>& parts) {
  const auto join = [&](at::Tensor ExitOpinions::*member) {
    std::vector<at::Tensor> tensors;
    for (const ExitOpinions& part : parts) {
      if ((part.*member).defined()) {
        tensors.push_back(part.*member);
      }
    }
    return tensors.empty() ? at::Tensor() : at::cat(tensors);
  };
  return {join(&ExitOpinions::confidence_before),
          join(&ExitOpinions::log_top),
          join(&ExitOpinions::log_margin),
          join(&ExitOpinions::agree),
          join(&ExitOpinions::input),
          join(&ExitOpinions::gate_before),
          join(&ExitOpinions::gate_after)};
}

}  // namespace

int64_t scored_tokens(const Sequence& sequence) {
  return std::ssize(sequence.targets) - std::ranges::count(sequence.targets, kernels::kIgnoreToken);
}

int64_t Opinions::first_token(int64_t sequence) const {
  return std::accumulate(tokens.begin(), tokens.begin() + sequence, int64_t{0});
}

Opinions read_opinions(const infer::Model& model, const Sequences& sequences,
                       const std::vector<double>& before, bool keep_input,
                       const std::function<void(int64_t done)>& progress) {
  std::vector<std::vector<ExitOpinions>> parts(model.exits.size());
  for_each_batch(sequences, [&](const SequenceBatch& batch, int64_t done) {
    for_each_head(model, batch, [&](const HeadRows& head) {
      if (head.exit != infer::kFinalLayer) {
        const auto exit = static_cast<size_t>(head.exit);
        parts[exit].push_back(opinions_of(model, batch, head, before[exit], keep_input));
        return;
      }
      const at::Tensor argmax = final_argmax(model, batch, head);
      for (auto& each : parts) {
        each.back().agree = each.back().agree.eq(argmax).to(at::kByte);
      }
    });
    progress(done);
  });
  Opinions opinions;
  for (const Sequence& sequence : sequences) {
    opinions.tokens.push_back(scored_tokens(sequence));
  }
  for (const auto& each : parts) {
    opinions.exits.push_back(joined(each));
  }
  return opinions;
}

std::vector<LikelihoodCurve> read_likelihoods(const infer::Model& model, const Sequences& sequences,
                                              const std::function<void(int64_t done)>& progress) {
  std::vector<LikelihoodCurve> curves(model.exits.size());
  for_each_batch(sequences, [&](const SequenceBatch& batch, int64_t done) {
    std::vector<std::pair<at::Tensor, at::Tensor>> heads;  // rows and weight: few, the labels come last
    for_each_head(model, batch, [&](const HeadRows& head) {
      if (head.exit != infer::kFinalLayer) {
        heads.emplace_back(head.rows, head.weight);
        return;
      }
      const at::Tensor labels = final_argmax(model, batch, head);
      for (size_t e = 0; e < heads.size(); ++e) {
        const auto statistics = head_statistics(heads[e].first, heads[e].second, temperature_grid(), labels);
        check_finite(model, batch, static_cast<int64_t>(e), statistics.top);
        add(curves[e], statistics);
      }
    });
    progress(done);
  });
  return curves;
}

ScoreTable score_table(const infer::Model& model, const Opinions& opinions, config::ExitPolicy policy,
                       int64_t begin, int64_t count) {
  const int64_t first = opinions.first_token(begin), end = opinions.first_token(begin + count);
  const auto part = [&](const at::Tensor& tensor) {
    return tensor.narrow(0, first, end - first).contiguous();
  };
  const auto copy = [&]<typename Number>(const at::Tensor& tensor, std::vector<Number>& to) {
    const at::Tensor own = part(tensor);
    const auto values = numbers<Number>(own);
    to.assign(values.begin(), values.end());
  };
  ScoreTable table{.tokens = {opinions.tokens.begin() + begin, opinions.tokens.begin() + begin + count},
                   .exits = {}};
  for (size_t e = 0; e < opinions.exits.size(); ++e) {
    const ExitOpinions& said = opinions.exits[e];
    const config::ExitSpec& spec = model.exits[e].spec;
    ExitScores scores{.layer = spec.layer, .depth = spec.depth(), .score = {}, .before = {}, .agree = {}};
    copy(said.agree, scores.agree);
    if (policy == config::ExitPolicy::gate) {
      copy(said.gate_after, scores.score);
      copy(said.gate_before, scores.before);
    } else {
      copy(said.log_top.exp(), scores.score);
    }
    table.exits.push_back(std::move(scores));
  }
  return table;
}

}  // namespace ee::eval
