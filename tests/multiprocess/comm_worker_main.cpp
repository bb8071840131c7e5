// One rank of the tests in comm_test.cpp:
//   ee_comm_worker <scenario> <folder> [key=value ...]
// Checks its own results against naive ones; writes the message of a CommError to <folder>/rank-<r>.
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <thread>

#include "ee/base/error.h"
#include "ee/base/program.h"
#include "ee/base/temporary_failure.h"
#include "ee/base/text.h"
#include "ee/comm/error.h"
#include "ee/comm/world.h"

namespace ee::comm {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using Parameters = std::map<std::string, std::string>;

struct Rank {
  World& world;
  const Parameters& parameters;
  fs::path folder;

  int rank() const { return world.rank(); }
  int size() const { return world.size(); }
  bool is(const char* key) const {
    return parameters.contains(key) && parameters.at(key) == std::to_string(rank());
  }
  Group everyone(const std::string& name = "all") const {
    std::vector<int> ranks(static_cast<std::size_t>(size()));
    for (int i = 0; i < size(); ++i) ranks[static_cast<std::size_t>(i)] = i;
    return world.make_group(name, ranks);
  }
};

// What rank `rank` contributes: small whole numbers, exact in every dtype.
at::Tensor contribution(int rank, std::vector<int64_t> shape, at::ScalarType dtype) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return at::arange(count, at::kLong).remainder(7).add(3 * rank).view(shape).to(dtype);
}

void expect_equal(const at::Tensor& got, const at::Tensor& expected, const std::string& what) {
  EE_CHECK(got.sizes() == expected.sizes() && got.scalar_type() == expected.scalar_type() &&
               at::equal(got, expected),
           "{} differs from the naive result", what);
}

void check_collectives(const Group& group, at::ScalarType dtype) {
  const int64_t n = group.size();
  std::vector<at::Tensor> blocks;  // the contribution of each rank: [n * 2, 3]
  for (const int rank : group.ranks()) blocks.push_back(contribution(rank, {n * 2, 3}, dtype));
  const at::Tensor& mine = blocks[static_cast<std::size_t>(group.rank())];
  at::Tensor sum = at::zeros_like(blocks[0]), max = blocks[0].clone();
  for (const auto& block : blocks) sum.add_(block), max = at::where(block.gt(max), block, max);

  at::Tensor reduced = mine.clone();
  group.all_reduce(reduced);
  expect_equal(reduced, sum, "all_reduce(sum)");
  reduced = mine.clone();
  Work work = group.all_reduce_async(reduced, Reduce::kMax);
  work.wait(), work.wait();
  expect_equal(reduced, max, "all_reduce(max)");

  at::Tensor gathered = at::zeros({n * n * 2, 3}, mine.options());
  group.all_gather(gathered, mine);
  expect_equal(gathered, at::cat(blocks), "all_gather");
  const int64_t begin = group.rank() * n * 2;
  gathered.zero_().slice(0, begin, begin + n * 2).copy_(mine);
  group.all_gather(gathered, gathered.slice(0, begin, begin + n * 2));
  expect_equal(gathered, at::cat(blocks), "all_gather in place");

  at::Tensor part = at::zeros({2, 3}, mine.options());
  group.reduce_scatter(part, mine);
  expect_equal(part, sum.slice(0, group.rank() * 2, group.rank() * 2 + 2), "reduce_scatter");
  const at::Tensor input = mine.clone(), rows = input.slice(0, group.rank() * 2, group.rank() * 2 + 2);
  group.reduce_scatter(rows, input);
  expect_equal(rows, part, "reduce_scatter in place");

  for (int root = 0; root < group.size(); ++root) {
    at::Tensor copy = mine.clone();
    group.broadcast(copy, root);
    expect_equal(copy, blocks[static_cast<std::size_t>(root)], "broadcast");
  }
  group.all_reduce(at::zeros({0, 4}, mine.options()));
  group.barrier();
}

// Every rank to every other, in an order without cycles: by pairs, the lower rank sends first.
void check_messages(const Group& group) {
  for (int low = 0; low < group.size(); ++low)
    for (int high = low + 1; high < group.size(); ++high) {
      if (group.rank() != low && group.rank() != high) continue;
      const int peer = group.rank() == low ? high : low;
      const int my_world = group.ranks()[static_cast<std::size_t>(group.rank())];
      const int peer_world = group.ranks()[static_cast<std::size_t>(peer)];
      const at::Tensor mine = contribution(my_world, {5}, at::kBFloat16), theirs = at::zeros_like(mine);
      if (group.rank() == low) group.send(mine, peer, 3), group.receive(theirs, peer, 4);
      if (group.rank() == high) group.receive(theirs, peer, 3), group.send(mine, peer, 4);
      expect_equal(theirs, contribution(peer_world, {5}, at::kBFloat16), "message");
    }
}

// A pipeline: micro-batches stream from rank to rank, several under way.
void check_streaming(const Group& group) {
  std::vector<Work> sends;
  std::vector<at::Tensor> buffers;
  for (int64_t batch = 0; batch < 6; ++batch) {
    at::Tensor hidden = at::full({16}, batch, at::kFloat);
    if (group.rank() > 0) {
      hidden.zero_();
      group.receive(hidden, group.rank() - 1);
    }
    expect_equal(hidden, at::full({16}, batch + 100 * group.rank(), at::kFloat), "streamed batch");
    buffers.push_back(hidden.add(100));
    if (group.rank() + 1 < group.size()) sends.push_back(group.send_async(buffers.back(), group.rank() + 1));
  }
  for (auto& send : sends) send.wait();
}

void collectives(const Rank& me) {
  const Group all = me.everyone();
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kLong}) check_collectives(all, dtype);
  check_messages(all);
  check_streaming(all);
  // Even and odd ranks, in reverse order, at the same time as the group of all.
  std::vector<int> half;
  for (int rank = me.size() - 1; rank >= 0; --rank)
    if (rank % 2 == me.rank() % 2) half.push_back(rank);
  const Group parity = me.world.make_group(me.rank() % 2 ? "odd" : "even", half);
  at::Tensor tensor = at::full({100}, me.rank(), at::kFloat);
  Work work = all.all_reduce_async(tensor);
  check_collectives(parity, at::kFloat);
  check_messages(parity);
  work.wait();
  expect_equal(tensor, at::full({100}, me.size() * (me.size() - 1) / 2, at::kFloat), "overlapped all_reduce");
}

// bfloat16 sums against exact ones rounded once.
void bf16_sums(const Rank& me) {
  const Group all = me.everyone();
  at::Tensor exact = at::zeros({40000}, at::kDouble), mine;
  for (int rank = 0; rank < me.size(); ++rank) {
    const at::Tensor x = at::arange(40000, at::kDouble).mul(0.37 + rank).sin().to(at::kBFloat16);
    if (rank == me.rank()) mine = x;
    exact.add_(x);
  }
  const at::Tensor rounded = exact.to(at::kFloat).to(at::kBFloat16);  // as float32 adds them up
  at::Tensor reduced = mine.clone();
  all.all_reduce(reduced);
  expect_equal(reduced, rounded, "all_reduce");

  at::Tensor part = at::zeros({40000 / me.size()}, at::kBFloat16);
  all.reduce_scatter(part, mine);
  expect_equal(part, rounded.slice(0, part.size(0) * me.rank(), part.size(0) * (me.rank() + 1)),
               "reduce_scatter");
}

// Large float32 sums (by parts) and small ones (whole): near the naive sum, the same bits on every rank.
void float_sums(const Rank& me) {
  const Group all = me.everyone();
  for (const int64_t count : {1, 1000, 16 * 1024 + 1, 100'003}) {
    at::Tensor exact = at::zeros({count}, at::kDouble), mine;
    for (int rank = 0; rank < me.size(); ++rank) {
      const at::Tensor x = at::arange(count, at::kDouble).mul(0.37 + rank).sin().to(at::kFloat);
      if (rank == me.rank()) mine = x;
      exact.add_(x);
    }
    const at::Tensor reduced = mine.clone();
    all.all_reduce(reduced);
    EE_CHECK(at::allclose(reduced.to(at::kDouble), exact, 1e-6, 1e-6), "all_reduce of {} is off", count);
    const at::Tensor everyones = at::zeros({me.size() * count}, at::kFloat);
    all.all_gather(everyones, reduced);
    for (int rank = 0; rank < me.size(); ++rank)
      expect_equal(everyones.slice(0, count * rank, count * (rank + 1)), reduced, "the sum on another rank");
  }
}

// Mistakes that strict mode must catch. Each ends in a CommError.
void wrong_shape(const Rank& me) {
  const Group all = me.everyone();
  all.barrier();
  all.all_reduce(at::zeros({me.is("wrong") ? 5 : 4}, at::kFloat));
}

void wrong_order(const Rank& me) {
  const Group all = me.everyone();
  at::Tensor tensor = at::zeros({4}, at::kFloat);
  Work first, second;
  if (me.is("wrong")) {
    first = all.broadcast_async(tensor, 0);
    second = all.all_reduce_async(tensor);
  } else {
    first = all.all_reduce_async(tensor);
    second = all.broadcast_async(tensor, 0);
  }
  first.wait(), second.wait();
}

void wrong_tag(const Rank& me) {
  const Group all = me.everyone();
  const at::Tensor a = at::zeros({4}, at::kFloat), b = at::ones({4}, at::kFloat);
  std::vector<Work> works;
  if (me.rank() == 0) works = {all.send_async(a, 1, 1), all.send_async(b, 1, 2)};
  if (me.rank() == 1) works = {all.receive_async(b, 0, 2), all.receive_async(a, 0, 1)};
  for (auto& work : works) work.wait();
}

// Both sides start their send before their receive: Gloo does not mind, NCCL never ends it.
void both_send_first(const Rank& me) {
  const Group all = me.everyone();
  const at::Tensor mine = at::full({4}, me.rank(), at::kFloat), theirs = at::zeros({4}, at::kFloat);
  Work send = all.send_async(mine, 1 - me.rank());
  Work receive = all.receive_async(theirs, 1 - me.rank());
  receive.wait(), send.wait();
  expect_equal(theirs, at::full({4}, 1 - me.rank(), at::kFloat), "exchanged");
}

// A circle of sends before receives: each pair agrees, the whole does not end.
void circle_of_sends(const Rank& me) {
  const Group all = me.everyone();
  me.world.set_context("step 4");
  const at::Tensor mine = at::zeros({4}, at::kFloat), theirs = at::zeros({4}, at::kFloat);
  all.send(mine, (me.rank() + 1) % me.size());
  all.receive(theirs, (me.rank() + me.size() - 1) % me.size());
}

// Works through steps of mixed operations for ever; `die` is the rank that raises `signal` before step `at`.
void endless(const Rank& me) {
  const Group all = me.everyone();
  const auto signal_number = me.parameters.contains("signal") ? std::stoi(me.parameters.at("signal")) : 0;
  const int64_t at = me.parameters.contains("at") ? std::stoll(me.parameters.at("at")) : -1;
  std::ofstream(me.folder / ("pid-" + std::to_string(me.rank()))) << ::getpid() << std::flush;
  const at::Tensor tensor = at::zeros({1000}, at::kFloat);
  const at::Tensor whole = at::zeros({1000 * me.size()}, at::kFloat);
  for (int64_t step = 1;; ++step) {
    me.world.set_context("step " + std::to_string(step));
    if (me.is("die") && step == at) {
      std::ofstream(me.folder / ("lost-" + std::to_string(me.rank()))) << step << std::flush;
      if (signal_number == 0) throw base::UserError("file gone");
      ::raise(signal_number);
    }
    Work work = all.all_reduce_async(tensor);
    if (me.rank() + 1 < me.size()) all.send(tensor, me.rank() + 1);
    if (me.rank() > 0) all.receive(tensor, me.rank() - 1);
    work.wait();
    all.all_gather(whole, tensor);
  }
}

// Rank `die` kills itself while the others compute and never look at the network.
void lost_while_computing(const Rank& me) {
  const Group all = me.everyone();
  all.barrier();
  me.world.set_context("step 9");
  if (me.is("die")) ::raise(SIGKILL);
  std::this_thread::sleep_for(std::chrono::seconds(60));
}

// One rank finishes early; the others still expect it.
void leaves_early(const Rank& me) {
  const Group all = me.everyone();
  all.barrier();
  if (me.is("leave")) return;
  all.all_reduce(at::zeros({4}, at::kFloat));
}

// Ranks finish one after the other, rank 0 first: no error.
void leave_in_turns(const Rank& me) {
  const Group all = me.everyone();
  all.barrier();
  std::this_thread::sleep_for(milliseconds(150 * me.rank()));
  if (me.rank() > 0 && me.size() > 2) me.world.make_group("late", {me.rank()}).barrier();
}

const std::map<std::string, std::function<void(const Rank&)>> kScenarios = {
    {"collectives", collectives},
    {"bf16_sums", bf16_sums},
    {"float_sums", float_sums},
    {"wrong_shape", wrong_shape},
    {"wrong_order", wrong_order},
    {"wrong_tag", wrong_tag},
    {"both_send_first", both_send_first},
    {"circle_of_sends", circle_of_sends},
    {"endless", endless},
    {"lost_while_computing", lost_while_computing},
    {"leaves_early", leaves_early},
    {"leave_in_turns", leave_in_turns},
};

int run(int argc, char** argv) {
  EE_CHECK(argc >= 3, "usage: ee_comm_worker scenario folder [key=value ...]");
  Parameters parameters;
  for (int i = 3; i < argc; ++i) {
    const auto words = base::split(argv[i], '=');
    parameters[words.at(0)] = words.at(1);
  }
  const auto number = [&](const char* key, int otherwise) {
    return milliseconds(parameters.contains(key) ? std::stoi(parameters.at(key)) : otherwise);
  };
  const LaunchInfo launch = detect_launch();
  WorldOptions options;
  options.rendezvous_timeout = number("rendezvous", 30'000);
  options.peer_timeout = number("peer", 20'000);
  options.operation_timeout = number("operation", 30'000);
  options.strict = parameters.contains("strict");
  try {
    World world(launch, options);
    const Rank rank{world, parameters, argv[2]};
    kScenarios.at(argv[1])(rank);
  } catch (const CommError& error) {
    std::ofstream(fs::path(argv[2]) / ("rank-" + std::to_string(launch.rank))) << error.what();
    throw;
  }
  return 0;
}

}  // namespace
}  // namespace ee::comm

int main(int argc, char** argv) {
  return ee::base::run_program("ee_comm_worker", [&] { return ee::comm::run(argc, argv); });
}
