#include "ee/train/fit.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <chrono>

#include "ee/base/error.h"
#include "ee/exits/exit_fit.h"
#include "teacher_walk.h"

namespace ee::train {

namespace {

constexpr int64_t kHeldOutEvery = 8;  // sequences

struct ExitSums {
  exits::NormalSums train, held_out;
};

int64_t count_sequences(const data::BatchSource& source, int64_t tokens) {
  const int64_t length = source.sequences().sequence_length();
  const int64_t count =
      std::min(std::max<int64_t>(2, (tokens + length - 1) / length), source.sequences().size());
  if (count < 2)
    throw base::UserError(
        "a fit needs at least 2 sequences of {} tokens, one of them held out; give more text, or a smaller "
        "batch.sequence_length",
        length);
  return count;
}

// The sequences that choose the strength have this index modulo kHeldOutEvery. Sequences and not
// micro-batches: what is found does not depend on how many are computed at a time.
int64_t held_out_index(int64_t count) { return std::min(count, kHeldOutEvery) - 1; }

// Both parts need a token to learn.
void check_learned_tokens(const data::BatchSource& source, int64_t count) {
  for (const bool held_out : {false, true}) {
    bool any = false;
    for (int64_t i = 0; i < count && !any; ++i)
      any =
          (i % kHeldOutEvery == held_out_index(count)) == held_out && source.first_learned(i, 1).has_value();
    if (!any)
      throw base::UserError(
          "{} of the {} sequences that exits are fitted on have nothing to learn: all of it belongs to "
          "prompts "
          "(\"prompt_tokens\"); give more text, cut the prompts, or raise exits.fit_tokens (--fit-tokens)",
          held_out ? "those that choose the ridge, one in eight," : "those that do not choose the ridge",
          count);
  }
}

// The rows of a batch that begins with sequence `first` of `count`.
void add_rows(const exits::FitRows& rows, int64_t first, int64_t count, ExitSums& sums) {
  const at::Tensor held_out = rows.sequences.add(first).remainder(kHeldOutEvery).eq(held_out_index(count));
  const auto add = [&](const at::Tensor& chosen, exits::NormalSums& part) {
    const at::Tensor index = chosen.nonzero().squeeze(1);
    if (index.size(0) == rows.features.size(0)) return part.add(rows.features, rows.target);
    if (index.size(0) > 0) part.add(rows.features.index_select(0, index), rows.target.index_select(0, index));
  };
  add(held_out, sums.held_out);
  add(held_out.logical_not(), sums.train);
}

// Adds up `sum` of all ranks of the group on its first one. Doubles travel as bytes: no backend adds them the
// same way everywhere.
void sum_to_first(const comm::Group& group, const at::Tensor& sum) {
  const auto bytes = [](const at::Tensor& tensor) { return tensor.view({-1}).view(at::kByte); };
  if (group.rank() != 0) return group.send(bytes(sum), 0);
  for (int rank = 1; rank < group.size(); ++rank) {
    const at::Tensor other = at::empty(sum.sizes(), sum.options());
    group.receive(bytes(other), rank);
    sum.add_(other);
  }
}

// The member's part of a whole tensor that the stage's first rank has solved.
void set_slice(const model::Backbone& backbone, const parallel::Ranks* ranks, const model::TensorShape& shape,
               at::Tensor whole, at::Tensor& member) {
  if (ranks && ranks->stage.size() > 1) {
    if (!whole.defined()) whole = at::empty(shape.sizes, member.options().dtype(at::kFloat));
    whole = whole.to(member.device());
    ranks->stage.broadcast(whole, 0);
  }
  const auto slice = backbone.ranks.own_slice(backbone.config, shape.split, shape.sizes);
  const c10::AutoGradMode no_grad(false);
  member.copy_(whole.narrow(slice.axis, slice.begin, slice.length));
}

// Which tensors these are follows from the spec; only the first rank knows their values.
void apply(Engine& engine, exits::ExitHead& exit, const exits::RidgeSolution& solution) {
  const model::Backbone& backbone = engine.backbone();
  const auto values = solution.weight.defined() ? exits::fitted_tensors(backbone, exit.spec, solution)
                                                : std::map<std::string, at::Tensor>();
  const std::string prefix = fmt::format("exits.{}.", exit.spec.layer);
  exits::visit_exit(backbone.config, exit,
                    [&](const std::string& name, const model::TensorShape& shape, at::Tensor& member) {
                      const std::string part = name.substr(prefix.size());
                      if (!exits::is_fitted(exit.spec, part)) return;
                      const auto value = values.find(part);
                      set_slice(backbone, engine.ranks(), shape,
                                value == values.end() ? at::Tensor() : value->second, member);
                    });
}

ExitFit solve(Engine& engine, exits::ExitHead& exit, const ExitSums& sums) {
  const parallel::Ranks* ranks = engine.ranks();
  if (ranks)
    for (const exits::NormalSums* part : {&sums.train, &sums.held_out})
      for (const at::Tensor& sum : part->tensors()) sum_to_first(ranks->stage, sum);
  exits::RidgeSolution solution;
  if (!ranks || ranks->stage.rank() == 0)
    solution = exits::solve_ridge(sums.train, sums.held_out, exit.spec.has_translator(),
                                  exits::fit_penalty(engine.backbone().config, exit.spec));
  apply(engine, exit, solution);
  return {.layer = exit.spec.layer,
          .strength = solution.strength,
          .unexplained = solution.unexplained,
          .condition = solution.condition};
}

// Every rank learns what the first ranks of all stages found.
std::vector<ExitFit> share(const Engine& engine, const std::vector<config::ExitSpec>& specs,
                           const std::vector<ExitFit>& own) {
  std::vector<double> numbers(3 * specs.size(), 0.0);
  for (size_t i = 0; i < own.size(); ++i) {
    const auto at = numbers.begin() + static_cast<std::ptrdiff_t>(3 * (engine.stage().first_exit + i));
    std::copy_n(std::array{own[i].strength, own[i].unexplained, own[i].condition}.begin(), 3, at);
  }
  if (engine.ranks()) numbers = parallel::sum_numbers(engine.ranks()->all, numbers, engine.ranks()->device);
  std::vector<ExitFit> all;
  for (size_t i = 0; i < specs.size(); ++i)
    all.push_back({.layer = specs[i].layer,
                   .strength = numbers[3 * i],
                   .unexplained = numbers[3 * i + 1],
                   .condition = numbers[3 * i + 2]});
  return all;
}

}  // namespace

void check_fit(const std::vector<config::ExitSpec>& specs, const data::BatchSource& source, int64_t tokens) {
  for (const auto& spec : specs)
    if (!spec.has_linear_last_step())
      throw base::UserError(
          "exits.init is fit, but the exit at layer {} of kind {} has no linear last step; give it a "
          "translator, or train it from its stored weights",
          spec.layer, config::to_string(spec.kind));
  check_learned_tokens(source, count_sequences(source, tokens));
}

int64_t fit_samples(const data::BatchSource& source, int64_t tokens) {
  return count_sequences(source, tokens);
}

std::optional<Fit> fit_exits(Engine& engine, const std::vector<config::ExitSpec>& specs,
                             const data::BatchSource& source, int64_t tokens, int64_t micro_batch,
                             const std::function<bool()>& stop) {
  const auto begin = std::chrono::steady_clock::now();
  const c10::AutoGradMode no_grad(false);
  const parallel::Ranks* ranks = engine.ranks();
  const model::Backbone& backbone = engine.backbone();
  const int64_t count = count_sequences(source, tokens);
  std::vector<ExitSums> sums;
  for (const auto& exit : engine.exits()) {
    const auto zeros = [&] {
      return exits::NormalSums::zeros(exits::fit_features(backbone.config, exit.spec),
                                      backbone.config.hidden_size, backbone.device());
    };
    sums.push_back({.train = zeros(), .held_out = zeros()});
  }

  const int64_t first = (ranks ? ranks->data.rank() : 0) * micro_batch,
                every = (ranks ? ranks->data.size() : 1) * micro_batch;
  int64_t visited = first;
  TeacherWalk walk(
      {engine.stage(), backbone, engine.exits(), engine.link(), engine.exit_inputs()}, ranks,
      [&](const data::Batch& batch, const std::vector<exits::ExitInput>& inputs, const at::Tensor& final) {
        const at::Tensor targets = batch.targets.to(backbone.device());
        for (size_t i = 0; i < inputs.size(); ++i)
          add_rows(exits::fit_rows(backbone, engine.exits()[i], inputs[i], final, targets), visited, count,
                   sums[i]);
        visited += every;
      });
  for (int64_t sample = first; sample < count; sample += every) {
    if (stop()) return std::nullopt;
    walk.push(source.at(sample, std::min(micro_batch, count - sample)));
  }
  walk.drain();

  std::vector<ExitFit> own;
  for (size_t i = 0; i < sums.size(); ++i) own.push_back(solve(engine, engine.exits()[i], sums[i]));
  Fit fit{.tokens = count * source.sequences().sequence_length(),
          .seconds = 0,
          .exits = share(engine, specs, own)};
  fit.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return fit;
}

std::string to_table(const Fit& fit) {
  std::string text =
      fmt::format("{:>6}  {:>20}  {:>9}  {:>9}\n", "exit", "variance unexplained", "ridge", "condition");
  for (const auto& exit : fit.exits)
    text += fmt::format("{:>6}  {:>19.1f}%  {:>9.0e}  {:>9.1e}\n", exit.layer, 100 * exit.unexplained,
                        exit.strength, exit.condition);
  return text + fmt::format("{} tokens in {:.1f} s\n", fit.tokens, fit.seconds);
}

}  // namespace ee::train
