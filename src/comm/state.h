// Behind World, Group and Work.
#pragma once

#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ee/comm/world.h"
#include "lane.h"
#include "operation.h"
#include "transport.h"
#include "watch.h"

namespace ee::comm {

struct World::State {
  LaunchInfo launch;
  WorldOptions options;
  std::shared_ptr<Activity> activity =
      std::make_shared<Activity>();  // the watch's thread may outlive the world
  std::unique_ptr<Store> store;      // null for a single process, as is:
  std::shared_ptr<Watch> watch;
  std::set<std::string> group_names;
  int exceptions = 0;  // under way when the world began
};

// How sure it is that an operation's failure is what it looks like.
enum class Blame {
  kUnknown,  // the backend says that a connection broke: the watch will soon know whose
  kCertain
};

// Throws the CommError of an operation that did not happen, after telling the other ranks.
[[noreturn]] void fail(const World::State& world, const Operation& operation, const std::string& error,
                       Blame blame);

struct Group::State : std::enable_shared_from_this<Group::State> {
  using Issue = std::function<Pending(Transport&)>;

  State(std::shared_ptr<World::State> world, std::string name, std::vector<int> ranks);
  ~State();

  int size() const { return static_cast<int>(ranks.size()); }
  Operation operation(const std::string& name, const at::Tensor& tensor) const;
  Operation message(const std::string& name, const at::Tensor& tensor, int peer, int tag) const;
  void check_tensor(const at::Tensor& tensor) const;

  // Starts what `issue` starts: now, or in strict mode on the operation's lane after comparing with the
  // others.
  Work start(Operation operation, Issue issue);
  void complete(const std::shared_ptr<const Operation>& operation, Pending& pending) const;

  const std::shared_ptr<World::State> world;
  const std::string name;
  const std::vector<int> ranks;
  const int rank;
  std::unique_ptr<Transport> transport;  // null for a group of one

  // Strict mode only.
  std::unique_ptr<Transport> side;             // carries what the ranks compare
  std::map<int, std::unique_ptr<Lane>> lanes;  // by the peer's group rank; -1: the collectives
  std::map<int, int> sequence;                 // operations so far, by lane; the issuing thread's

 private:
  Pending issue_checked(const Operation& operation, Transport& on, const Issue& issue);
  void run_strictly(const std::shared_ptr<const Operation>& operation, int number, const Issue& issue);
};

struct Work::State {
  std::shared_ptr<Group::State> group;
  std::shared_ptr<const Operation> operation;
  std::optional<Pending> pending;
  std::shared_future<void> strict_task;
};

}  // namespace ee::comm
