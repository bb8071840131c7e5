#include "ee/comm/world.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <net/if.h>

#include <csignal>
#include <exception>
#include <set>

#include "ee/base/text.h"
#include "ee/comm/error.h"
#include "state.h"

namespace ee::comm {

namespace {

bool strict_from_environment() {
  const auto value = read_environment("EE_COMM_STRICT");
  if (!value || value->empty() || *value == "0") return false;
  if (*value != "1") throw base::UserError("EE_COMM_STRICT={}: 0 or 1 was expected", *value);
  return true;
}

// Gloo writes to connections that a lost rank has closed: that must become an error, not a silent end.
void ignore_broken_pipes() {
  struct sigaction current {};
  if (::sigaction(SIGPIPE, nullptr, &current) == 0 && current.sa_handler == SIG_DFL)
    std::signal(SIGPIPE, SIG_IGN);
}

// Gloo would say so only when all have met.
void check_gloo_interface() {
  const auto name = read_environment("GLOO_SOCKET_IFNAME");
  if (!name || ::if_nametoindex(name->c_str()) != 0) return;
  std::vector<std::string> names;
  if (auto* interfaces = ::if_nameindex()) {
    for (const auto* entry = interfaces; entry->if_index != 0; ++entry) names.emplace_back(entry->if_name);
    ::if_freenameindex(interfaces);
  }
  throw base::UserError(
      "GLOO_SOCKET_IFNAME={}: this machine has no such network interface, but {}; set it to one of them, or "
      "unset it",
      *name, base::join(names, ", "));
}

// torchrun's agent serves a store at MASTER_ADDR:MASTER_PORT, where rank 0 leaves the port of the meeting.
Meeting meet_by_agent(World::State& world) {
  const LaunchInfo& launch = world.launch;
  const auto patience = world.options.rendezvous_timeout;
  Approach(launch, launch.master_port, patience).connect();  // tells a wrong address; the store only waits
  world.store = Store::connect(launch.master_addr, launch.master_port, launch.attempt, patience);
  if (launch.rank == 0) {
    MeetingHost host(launch);
    world.store->set("meeting", std::to_string(host.port()));
    return host.meet(0, patience);
  }
  return MeetingGuest(launch, std::stoi(world.store->get("meeting")), patience).meet();
}

// Rank 0 is met at MASTER_ADDR:MASTER_PORT itself, and says where its store is.
Meeting meet_at_rank_0(World::State& world) {
  const LaunchInfo& launch = world.launch;
  const auto patience = world.options.rendezvous_timeout;
  if (launch.rank == 0) {
    world.store = Store::serve(launch.attempt, patience);
    MeetingHost host(launch);  // after it: who comes is answered at once
    return host.meet(world.store->port(), patience);
  }
  MeetingGuest guest(launch, launch.master_port, patience);
  world.store = Store::connect(guest.host_address(), guest.store_port(), launch.attempt, patience);
  return guest.meet();
}

void join(World::State& world) {
  const LaunchInfo& launch = world.launch;
  ignore_broken_pipes();
  check_gloo_interface();
  try {
    Meeting meeting = launch.agent_store ? meet_by_agent(world) : meet_at_rank_0(world);
    world.watch = Watch::start(launch, world.options, std::move(meeting),
                               [activity = world.activity] { return activity->describe(); });
  } catch (const BackendError& error) {
    throw CommError(
        fmt::format("rank {} of {} cannot meet the others at {} (MASTER_ADDR, MASTER_PORT) within {} s: {}",
                    launch.rank, launch.world_size, endpoint(launch.master_addr, launch.master_port),
                    std::chrono::duration<double>(world.options.rendezvous_timeout).count(), error.what()));
  }
}

}  // namespace

World::World(const LaunchInfo& launch, const WorldOptions& options) : state_(std::make_shared<State>()) {
  state_->launch = launch;
  state_->options = options;
  state_->options.strict = options.strict || strict_from_environment();
  state_->exceptions = std::uncaught_exceptions();
  if (state_->options.strict && !options.device.is_cpu())
    throw base::UserError("EE_COMM_STRICT=1 compares operations on CPU only; unset it, or use the CPU");
  if (launch.world_size > 1) join(*state_);
}

World::~World() {
  if (!state_->watch) return;
  if (std::uncaught_exceptions() > state_->exceptions) {
    state_->watch->report_failure("it ended with an error; its own message says which");
    state_->watch->detach();
  } else if (state_->watch->verdict()) {
    state_->watch->detach();
  } else {
    state_->watch->leave();
  }
}

int World::rank() const { return state_->launch.rank; }
int World::size() const { return state_->launch.world_size; }
const LaunchInfo& World::launch() const { return state_->launch; }
at::Device World::device() const { return state_->options.device; }
bool World::strict() const { return state_->options.strict; }

Group World::make_group(const std::string& name, const std::vector<int>& ranks) {
  const std::set<int> different(ranks.begin(), ranks.end());
  EE_CHECK(!ranks.empty() && different.size() == ranks.size() && *different.begin() >= 0 &&
               *different.rbegin() < size(),
           "group {} of ranks {} in a world of {}", name, fmt::join(ranks, ", "), size());
  EE_CHECK(different.contains(rank()), "rank {} makes group {} of ranks {}", rank(), name,
           fmt::join(ranks, ", "));
  EE_CHECK(state_->group_names.insert(name).second, "a second group {}", name);
  return Group(std::make_shared<Group::State>(state_, name, ranks));
}

void World::set_context(std::string context) { state_->activity->set_context(std::move(context)); }

void World::check() const {
  const auto verdict = state_->watch ? state_->watch->verdict() : std::nullopt;
  if (!verdict) return;
  state_->watch->announce();
  throw CommError(in_words(*verdict, state_->activity->describe(), rank()));
}

}  // namespace ee::comm
