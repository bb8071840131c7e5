#include "ee/comm/group.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>

#include "direct.h"
#include "ee/comm/error.h"
#include "state.h"
#include "strict.h"

namespace ee::comm {

namespace {

const char* reduce_name(Reduce reduce) {
  return reduce == Reduce::kSum ? "all_reduce(sum)" : "all_reduce(max)";
}

bool same_but_first(const at::Tensor& a, const at::Tensor& b) {
  return a.dim() == b.dim() && a.dim() > 0 && a.sizes().slice(1) == b.sizes().slice(1) &&
         a.scalar_type() == b.scalar_type();
}

}  // namespace

void fail(const World::State& world, const Operation& operation, const std::string& error, Blame blame) {
  const Watch& watch = *world.watch;
  auto verdict = watch.verdict();
  auto left = watch.any_left(operation.others);
  if (!verdict && !left && blame == Blame::kUnknown) {
    verdict = watch.wait_for_news(operation.others, watch.silence_limit() * 5 / 4);
    left = watch.any_left(operation.others);
  }
  const std::string cause = left ? fmt::format("rank {} has left the run", *left) : error;
  const std::string report = world.activity->context() + describe(operation) + ": " + cause;
  if (!verdict) {
    world.watch->report_failure(report);
    verdict = watch.wait_for_verdict(watch.silence_limit());
  }
  const bool first = !verdict || (verdict->rank == world.launch.rank && verdict->cause.ends_with(report));
  std::string text = fmt::format("{}{} (ranks {}), on rank {}: {}", world.activity->context(),
                                 describe(operation), fmt::join(operation.ranks, ", "), world.launch.rank,
                                 first ? cause : fmt::format("rank {} {}", verdict->rank, verdict->cause));
  if (verdict && !verdict->table.empty()) text += "\nWhat the ranks were doing:\n" + verdict->table;
  world.watch->announce();
  throw CommError(text);
}

// Group::State ------------------------------------------------------------

Group::State::State(std::shared_ptr<World::State> world_state, std::string group_name,
                    std::vector<int> members)
    : world(std::move(world_state)),
      name(std::move(group_name)),
      ranks(std::move(members)),
      rank(static_cast<int>(std::ranges::find(ranks, world->launch.rank) - ranks.begin())) {
  if (size() == 1) return;
  const auto forming = std::make_shared<Operation>(operation("forming", {}));
  const Activity::Scope scope(*world->activity, forming);
  TransportOptions options{.name = name,
                           .rank = rank,
                           .size = size(),
                           .device = world->options.device,
                           .address = world->watch->address(),
                           .connect_timeout = world->options.rendezvous_timeout,
                           .operation_timeout = world->options.operation_timeout};
  try {
    transport = std::make_unique<Transport>(*world->store, options);
    options.name += ".strict";
    if (world->options.strict) side = std::make_unique<Transport>(*world->store, options);
  } catch (const BackendError& error) {
    fail(*world, *forming, error.what(), Blame::kUnknown);
  }
}

Group::State::~State() {
  lanes.clear();
  const bool failed = std::uncaught_exceptions() > 0 || (world->watch && world->watch->verdict());
  if (failed && transport) transport->abandon();
  if (failed && side) side->abandon();
}

Operation Group::State::operation(const std::string& operation_name, const at::Tensor& tensor) const {
  Operation operation{.name = operation_name, .group = name, .ranks = ranks};
  if (tensor.defined()) operation.tensor = describe_tensor(tensor.scalar_type(), tensor.sizes().vec());
  for (const int other : ranks)
    if (other != world->launch.rank) operation.others.push_back(other);
  return operation;
}

Operation Group::State::message(const std::string& operation_name, const at::Tensor& tensor, int peer,
                                int tag) const {
  EE_CHECK(tag >= 0 && tag < DirectCollectives::kFirstTag, "tag {}", tag);
  EE_CHECK(peer >= 0 && peer < size() && peer != rank, "{} between ranks {} and {} of group {}",
           operation_name, rank, peer, name);
  Operation operation = this->operation(operation_name, tensor);
  operation.peer = ranks[static_cast<std::size_t>(peer)];
  operation.others = {operation.peer};
  operation.tag = tag;
  return operation;
}

void Group::State::check_tensor(const at::Tensor& tensor) const {
  const auto type = tensor.scalar_type();
  EE_CHECK(tensor.is_contiguous(), "group {}: a tensor is not contiguous", name);
  EE_CHECK(tensor.device().type() == world->options.device.type(), "group {}: a tensor on the wrong device",
           name);
  EE_CHECK(type == at::kFloat || type == at::kBFloat16 || type == at::kLong || type == at::kByte,
           "group {}: dtype {}", name, c10::toString(type));
}

Work Group::State::start(Operation operation, Issue issue) {
  auto shared = std::make_shared<const Operation>(std::move(operation));
  if (world->watch->verdict()) fail(*world, *shared, "", Blame::kCertain);
  auto work = std::make_shared<Work::State>(Work::State{shared_from_this(), shared, {}, {}});
  if (!side) {
    work->pending = issue_checked(*shared, *transport, issue);
    return Work(std::move(work));
  }
  const int key = shared->is_message() ? shared->peer : -1;
  auto& lane = lanes[key];
  if (!lane) lane = std::make_unique<Lane>();
  const int number = ++sequence[key];
  work->strict_task = lane->enqueue(
      [this, shared, number, issue = std::move(issue)] { run_strictly(shared, number, issue); });
  return Work(std::move(work));
}

Pending Group::State::issue_checked(const Operation& operation, Transport& on, const Issue& issue) {
  try {
    return issue(on);
  } catch (const BackendError& error) {
    fail(*world, operation, error.what(), Blame::kUnknown);
  }
}

void Group::State::run_strictly(const std::shared_ptr<const Operation>& operation, int number,
                                const Issue& issue) {
  const std::string mine = signature(*operation, number, world->activity->context());
  std::vector<Pending> exchange;
  const at::Tensor theirs = at::zeros({size(), kSignatureBytes}, at::kByte);
  const at::Tensor own = signature_tensor(mine);
  const auto side_issue = [&](const Issue& what) {
    exchange.push_back(issue_checked(*operation, *side, what));
  };
  if (operation->is_message()) {
    const int peer = static_cast<int>(std::ranges::find(ranks, operation->peer) - ranks.begin());
    side_issue([&](Transport& on) { return on.send(own, peer, 0); });
    side_issue([&](Transport& on) { return on.receive(theirs.select(0, peer), peer, 0); });
  } else {
    side_issue([&](Transport& on) { return on.all_gather(theirs.view({-1}), own); });
  }
  for (auto& pending : exchange) complete(operation, pending);
  for (const int other : operation->others) {
    const auto row = std::ranges::find(ranks, other) - ranks.begin();
    const auto difference =
        compare_signatures(mine, world->launch.rank, signature_text(theirs.select(0, row)), other);
    if (!difference.empty()) fail(*world, *operation, difference, Blame::kCertain);
  }
  Pending pending = issue_checked(*operation, *transport, issue);
  complete(operation, pending);
}

void Group::State::complete(const std::shared_ptr<const Operation>& operation, Pending& pending) const {
  const Activity::Scope scope(*world->activity, operation);
  const auto limit = world->options.operation_timeout;
  std::string error;
  Blame blame = Blame::kUnknown;
  try {
    const Watch::Interest interest(*world->watch, operation->others, [&] { pending.interrupt(); });
    const auto result = pending.wait(limit);
    if (result == Result::kDone) return;
    if (result == Result::kTimedOut) {
      error = fmt::format(
          "timed out after {:.1f} s, with all ranks alive: a deadlock, or some rank does something else",
          std::chrono::duration<double>(limit).count());
      blame = Blame::kCertain;
    }
  } catch (const BackendError& backend_error) {
    error = backend_error.what();
  }
  fail(*world, *operation, error, blame);
}

// Work ------------------------------------------------------------

void Work::wait() {
  if (!state_) return;
  const auto state = std::move(state_);
  if (state->strict_task.valid()) {
    state->strict_task.get();
  } else if (state->pending) {
    Pending pending = std::move(*state->pending);
    state->pending.reset();
    state->group->complete(state->operation, pending);
  }
}

// Group ------------------------------------------------------------

const std::string& Group::name() const { return state_->name; }
int Group::rank() const { return state_->rank; }
int Group::size() const { return state_->size(); }
const std::vector<int>& Group::ranks() const { return state_->ranks; }

Work Group::all_reduce_async(const at::Tensor& tensor, Reduce reduce) const {
  state_->check_tensor(tensor);
  if (size() == 1 || tensor.numel() == 0) return {};
  return state_->start(state_->operation(reduce_name(reduce), tensor),
                       [=](Transport& on) { return on.all_reduce(tensor, reduce); });
}

Work Group::all_gather_async(const at::Tensor& output, const at::Tensor& input) const {
  state_->check_tensor(output), state_->check_tensor(input);
  EE_CHECK(same_but_first(output, input) && output.size(0) == size() * input.size(0),
           "all_gather in group {}: {} from {}", state_->name, fmt::join(output.sizes(), "x"),
           fmt::join(input.sizes(), "x"));
  if (size() == 1) output.copy_(input);
  if (size() == 1 || input.numel() == 0) return {};
  return state_->start(state_->operation("all_gather", input),
                       [=](Transport& on) { return on.all_gather(output, input); });
}

Work Group::reduce_scatter_async(const at::Tensor& output, const at::Tensor& input) const {
  state_->check_tensor(output), state_->check_tensor(input);
  EE_CHECK(same_but_first(output, input) && input.size(0) == size() * output.size(0),
           "reduce_scatter in group {}: {} from {}", state_->name, fmt::join(output.sizes(), "x"),
           fmt::join(input.sizes(), "x"));
  if (size() == 1) output.copy_(input);
  if (size() == 1 || input.numel() == 0) return {};
  return state_->start(state_->operation("reduce_scatter", input),
                       [=](Transport& on) { return on.reduce_scatter(output, input); });
}

Work Group::broadcast_async(const at::Tensor& tensor, int root) const {
  state_->check_tensor(tensor);
  EE_CHECK(root >= 0 && root < size(), "broadcast from rank {} of group {}", root, state_->name);
  if (size() == 1 || tensor.numel() == 0) return {};
  return state_->start(state_->operation(fmt::format("broadcast(root {})", root), tensor),
                       [=](Transport& on) { return on.broadcast(tensor, root); });
}

void Group::barrier() const {
  if (size() == 1) return;
  state_->start(state_->operation("barrier", {}), [](Transport& on) { return on.barrier(); }).wait();
}

Work Group::send_async(const at::Tensor& tensor, int to, int tag) const {
  state_->check_tensor(tensor);
  Operation operation = state_->message("send", tensor, to, tag);
  if (tensor.numel() == 0) return {};
  return state_->start(std::move(operation), [=](Transport& on) { return on.send(tensor, to, tag); });
}

Work Group::receive_async(const at::Tensor& tensor, int from, int tag) const {
  state_->check_tensor(tensor);
  Operation operation = state_->message("receive", tensor, from, tag);
  if (tensor.numel() == 0) return {};
  return state_->start(std::move(operation), [=](Transport& on) { return on.receive(tensor, from, tag); });
}

void Group::all_reduce(const at::Tensor& tensor, Reduce reduce) const {
  all_reduce_async(tensor, reduce).wait();
}
void Group::all_gather(const at::Tensor& output, const at::Tensor& input) const {
  all_gather_async(output, input).wait();
}
void Group::reduce_scatter(const at::Tensor& output, const at::Tensor& input) const {
  reduce_scatter_async(output, input).wait();
}
void Group::broadcast(const at::Tensor& tensor, int root) const { broadcast_async(tensor, root).wait(); }
void Group::send(const at::Tensor& tensor, int to, int tag) const { send_async(tensor, to, tag).wait(); }
void Group::receive(const at::Tensor& tensor, int from, int tag) const {
  receive_async(tensor, from, tag).wait();
}

}  // namespace ee::comm
