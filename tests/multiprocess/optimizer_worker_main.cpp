// One rank of the tests in optimizer_test.cpp:
//   ee_optimizer_worker <scenario> <clip> <strict|free>
// Checks its own results against an optimizer of a single process.
#include <ATen/Parallel.h>

#include <cmath>
#include <functional>
#include <map>

#include "ee/base/program.h"
#include "ee/comm/world.h"
#include "ee/optim/optimizer.h"

namespace ee::optim {
namespace {

using Shapes = std::vector<std::vector<int64_t>>;

// Parameters of uneven sizes: shares cut through matrices and vectors.
const Shapes kSmall = {{5, 7}, {50}, {33, 17}}, kLarge = {{1}, {64, 48}, {100}};
constexpr int64_t kTinyBucket = 1024;  // bytes: many buckets
constexpr double kLearningRate = 1e-2;

struct Rank {
  comm::World& world;
  config::OptimizerOptions options;

  int rank() const { return world.rank(); }
  int size() const { return world.size(); }
  // Of the ranks first, first + stride, ..., `count` of them.
  comm::Group group(const std::string& name, int first, int stride, int count) const {
    std::vector<int> ranks;
    for (int i = 0; i < count; ++i) ranks.push_back(first + i * stride);
    return world.make_group(name, ranks);
  }
};

// Some numbers around 0 that depend on `seed`.
at::Tensor numbers(const std::vector<int64_t>& shape, int64_t seed) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return at::arange(count, at::kDouble)
      .mul(0.37)
      .add(static_cast<double>(seed))
      .mul(1.7)
      .sin()
      .to(at::kFloat)
      .view(shape);
}

ParameterGroup make_group(const Shapes& shapes, int64_t layer) {
  ParameterGroup group{.layer = layer, .parameters = {}};
  for (const auto& shape : shapes) {
    const auto i = static_cast<int64_t>(group.parameters.size());
    group.parameters.push_back(
        Parameter::make(fmt::format("exits.{}.{}", layer, i), numbers(shape, layer + i)));
  }
  return group;
}

std::vector<ParameterGroup> two_exits() { return {make_group(kSmall, 2), make_group(kLarge, 5)}; }

// The gradient of a parameter on one data-parallel rank.
at::Tensor gradient(const Parameter& parameter, int64_t layer, int64_t step, int rank) {
  return numbers(parameter.master.sizes().vec(), 100 * step + 10 * rank + layer).mul(0.1 * (rank + 1));
}

// Sets the gradients to the sum over `ranks` and goes one step.
std::vector<double> train(Optimizer& optimizer, int64_t step, const std::vector<int>& ranks) {
  const auto& groups = optimizer.groups();
  for (size_t i = 0; i < groups.size(); ++i) {
    for (const auto& parameter : groups[i].parameters)
      for (const int rank : ranks) parameter.gradient.add_(gradient(parameter, groups[i].layer, step, rank));
    optimizer.reduce(i);
  }
  return optimizer.step(kLearningRate, step);
}

at::Tensor masters(const Optimizer& optimizer) {
  std::vector<at::Tensor> tensors;
  for (const auto& group : optimizer.groups())
    for (const auto& parameter : group.parameters) tensors.push_back(parameter.master.detach().reshape({-1}));
  return at::cat(tensors);
}

void expect_close(const at::Tensor& got, const at::Tensor& expected, const std::string& what) {
  EE_CHECK(at::allclose(got, expected, 1e-6, 1e-7), "{} differ from one process's", what);
}

void expect_close(const std::vector<double>& got, const std::vector<double>& expected) {
  expect_close(at::tensor(got, at::kDouble), at::tensor(expected, at::kDouble), "norms");
}

void expect_same_bits(const at::Tensor& got, const at::Tensor& expected, const std::string& what) {
  EE_CHECK(at::equal(got, expected), "{}: other bits", what);
}

void expect_same_bits_everywhere(const comm::Group& group, const at::Tensor& mine) {
  const at::Tensor all = at::zeros({group.size() * mine.numel()}, mine.options());
  group.all_gather(all, mine);
  for (const auto& other : all.view({group.size(), -1}).unbind(0)) expect_same_bits(other, mine, "two ranks");
}

std::vector<int> all_ranks(int count) {
  std::vector<int> ranks;
  for (int i = 0; i < count; ++i) ranks.push_back(i);
  return ranks;
}

// Sharded and not, in many buckets and in one, against one process.
void data(const Rank& me) {
  const auto all = me.group("data", 0, 1, me.size());
  Optimizer alone(me.options, two_exits());
  std::vector<Optimizer> together;
  for (const bool shard : {false, true})
    for (const int64_t bucket : {kTinyBucket, Optimizer::kBucketBytes})
      together.emplace_back(me.options, two_exits(), ReduceRanks{.data = all}, shard, bucket);
  for (int64_t step = 0; step < 5; ++step) {
    const auto norms = train(alone, step, all_ranks(me.size()));
    for (auto& optimizer : together) expect_close(train(optimizer, step, {me.rank()}), norms);
  }
  for (auto& optimizer : together) {
    expect_close(masters(optimizer), masters(alone), "masters");
    expect_same_bits_everywhere(all, masters(optimizer));
  }
  // Norms are added up by shares, so the clip factor may depend on the buckets, but not on who holds the
  // state.
  expect_same_bits(masters(together[0]), masters(together[2]), "sharded, in buckets");
  expect_same_bits(masters(together[1]), masters(together[3]), "sharded, in one bucket");
}

// From a sharded run to one that is not, and to one with other buckets.
void moments(const Rank& me) {
  const auto all = me.group("data", 0, 1, me.size());
  Optimizer alone(me.options, two_exits());
  Optimizer first(me.options, two_exits(), {.data = all}, /*shard_state=*/true, kTinyBucket);
  for (int64_t step = 0; step < 3; ++step) {
    train(alone, step, all_ranks(me.size()));
    train(first, step, {me.rank()});
  }
  std::vector<Optimizer> resumed;
  resumed.emplace_back(me.options, two_exits(), ReduceRanks{.data = all}, false, kTinyBucket);
  resumed.emplace_back(me.options, two_exits(), ReduceRanks{.data = all}, true, kTinyBucket);
  resumed.emplace_back(me.options, two_exits(), ReduceRanks{.data = all}, true, 2 * kTinyBucket);
  for (size_t i = 0; i < 2; ++i) {
    const auto expected = alone.moments(i), got = first.moments(i);
    for (const auto& [name, moments] : got) {
      expect_close(moments.first, expected.at(name).first, "first moments");
      expect_close(moments.second, expected.at(name).second, "second moments");
      for (auto& optimizer : resumed) optimizer.set_moments(i, name, moments);
    }
    for (auto& optimizer : resumed)
      for (size_t p = 0; p < optimizer.groups()[i].parameters.size(); ++p)
        optimizer.groups()[i].parameters[p].master.detach().copy_(
            first.groups()[i].parameters[p].master.detach());
  }
  for (int64_t step = 3; step < 5; ++step) {
    train(first, step, {me.rank()});
    for (auto& optimizer : resumed) train(optimizer, step, {me.rank()});
  }
  expect_same_bits(masters(resumed[0]), masters(first), "without shares");
  expect_same_bits(masters(resumed[1]), masters(first), "with shares");
  expect_close(masters(resumed[2]), masters(first), "masters with other shares");
}

// An exit of a matrix whose rows two tensor ranks split, a vector they both have with the same gradient, and
// a vector they both have with a part of the gradient each. Ranks 2d and 2d + 1 are the tensor ranks of data
// rank d.
void tensor(const Rank& me) {
  const int data_ranks = me.size() / 2, tensor_rank = me.rank() % 2, data_rank = me.rank() / 2;
  ReduceRanks ranks{.tensor = me.group(fmt::format("tensor.{}", data_rank), 2 * data_rank, 1, 2)};
  if (data_ranks > 1) ranks.data = me.group(fmt::format("data.{}", tensor_rank), tensor_rank, 2, data_ranks);
  const auto rows = [&](const at::Tensor& whole) {
    return whole.slice(0, 11 * tensor_rank, 11 * tensor_rank + 11);
  };
  const ParameterGroup whole = make_group({{22, 9}, {50}, {40}}, 3);
  ParameterGroup mine = make_group({{22, 9}, {50}, {40}}, 3);
  mine.parameters[0].master = rows(mine.parameters[0].master).clone();
  mine.parameters[1].tensor_copies = mine.parameters[2].tensor_copies = 2;
  mine.parameters[2].partial_over = ranks.tensor;
  Optimizer alone(me.options, {whole}), split(me.options, {mine}, ranks, data_ranks > 1, kTinyBucket);
  for (int64_t step = 0; step < 5; ++step) {
    const auto& p = alone.groups()[0].parameters;
    const auto& q = split.groups()[0].parameters;
    const auto part = [&](size_t i) { return gradient(p[i], 3, step, data_rank); };
    q[0].gradient.add_(rows(part(0)));
    q[1].gradient.add_(part(1));
    q[2].gradient.add_(part(2).mul(tensor_rank == 0 ? 0.25 : 0.75));
    split.reduce(0);
    expect_close(split.step(kLearningRate, step), train(alone, step, all_ranks(data_ranks)));
  }
  const auto& p = alone.groups()[0].parameters;
  const auto& q = split.groups()[0].parameters;
  expect_close(q[0].master, rows(p[0].master), "rows");
  for (const size_t i : {1, 2}) {
    expect_close(q[i].master, p[i].master, "copies");
    expect_same_bits_everywhere(*ranks.tensor, q[i].master.detach());
  }
}

// Two stages with one and two exits, then with none and three. Only a global clip makes a stage wait: else
// the second one does not even take part.
void pipeline(const Rank& me) {
  const auto stages = me.group("pipeline", 0, 1, 2);
  const bool global = me.options.clip == config::ClipMode::global;
  const auto exits = [] {
    return std::vector{make_group(kSmall, 2), make_group(kLarge, 5), make_group(kSmall, 7)};
  };
  for (const size_t in_first : {1, 0}) {
    auto mine = exits();
    if (me.rank() == 0) mine.resize(in_first);
    if (me.rank() == 1) mine.erase(mine.begin(), mine.begin() + static_cast<int64_t>(in_first));
    if (mine.empty() && !global) continue;
    const size_t begin = me.rank() == 0 ? 0 : in_first;
    Optimizer alone(me.options, exits()), stage(me.options, std::move(mine), {.pipeline = stages});
    for (int64_t step = 0; step < (global || me.rank() == 0 ? 5 : 3); ++step) {
      auto norms = train(alone, step, {0});
      norms = {norms.begin() + static_cast<int64_t>(begin),
               norms.begin() + static_cast<int64_t>(begin + stage.groups().size())};
      expect_close(train(stage, step, {0}), norms);
    }
    for (size_t i = 0; i < stage.groups().size(); ++i)
      for (size_t p = 0; p < stage.groups()[i].parameters.size(); ++p)
        expect_close(stage.groups()[i].parameters[p].master, alone.groups()[begin + i].parameters[p].master,
                     "masters");
  }
}

// Data ranks 0 and 1, and a second stage with ranks 2 and 3 if there are four. Only rank 1's gradient is
// broken.
void not_finite(const Rank& me) {
  const int stage = me.rank() / 2;
  ReduceRanks ranks{.data = me.group(fmt::format("data.{}", stage), 2 * stage, 1, 2)};
  if (me.size() > 2)
    ranks.pipeline = me.group(fmt::format("pipeline.{}", me.rank() % 2), me.rank() % 2, 2, 2);
  for (const bool shard : {false, true}) {
    Optimizer optimizer(me.options, two_exits(), ranks, shard, kTinyBucket);
    const at::Tensor before = masters(optimizer).clone();
    const at::Tensor hit = optimizer.groups()[1].parameters[1].gradient;
    if (me.rank() == 1) hit[3][4] = std::nan("");
    std::string message;
    try {
      train(optimizer, 7, {me.rank()});
    } catch (const base::UserError& error) {
      message = error.what();
    }
    const auto* expected = stage == 0 ? "the gradient of the exit at layer 5 is not finite at step 8"
                                      : "a gradient of another pipeline stage is not finite at step 8";
    EE_CHECK(message.starts_with(expected), "rank {} said: {}", me.rank(), message);
    expect_same_bits(masters(optimizer), before, "masters after the error");
  }
}

const std::map<std::string, std::function<void(const Rank&)>> kScenarios = {
    {"data", data},         {"moments", moments},       {"tensor", tensor},
    {"pipeline", pipeline}, {"not_finite", not_finite},
};

int run(int argc, char** argv) {
  EE_CHECK(argc == 4, "usage: ee_optimizer_worker scenario clip strict|free");
  at::set_num_threads(1);
  const c10::AutoGradMode no_grad(false);
  const std::map<std::string, config::ClipMode> modes = {{"per_exit", config::ClipMode::per_exit},
                                                         {"global", config::ClipMode::global},
                                                         {"none", config::ClipMode::none}};
  comm::WorldOptions world_options;
  world_options.peer_timeout = std::chrono::seconds(20);
  world_options.operation_timeout = std::chrono::seconds(30);
  world_options.strict = std::string(argv[3]) == "strict";
  comm::World world(comm::detect_launch(), world_options);
  kScenarios.at(argv[1])({world, {.weight_decay = 0.1, .clip = modes.at(argv[2]), .clip_norm = 0.7}});
  return 0;
}

}  // namespace
}  // namespace ee::optim

int main(int argc, char** argv) {
  return ee::base::run_program("ee_optimizer_worker", [&] { return ee::optim::run(argc, argv); });
}
