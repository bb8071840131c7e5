// All processes of a run: they find each other, watch each other, and form groups.
#pragma once

#include <c10/core/Device.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "ee/comm/group.h"
#include "ee/comm/launch.h"

namespace ee::comm {

struct WorldOptions {
  at::Device device = at::Device(at::kCPU);  // CPU: Gloo; CUDA: NCCL, through the plug-in
  // All ranks must have come within this time after the first.
  std::chrono::milliseconds rendezvous_timeout{300'000};
  // After a rank died, stopped or became unreachable, every other rank ends within this time. A rank counts
  // as stopped when it sent no heartbeat for half of it; heartbeats do not depend on what the rank computes.
  std::chrono::milliseconds peer_timeout{60'000};
  // An operation that a living rank does not take part in for this long is an error (a deadlock, or a bug).
  std::chrono::milliseconds operation_timeout{1'800'000};
  // Before each operation its ranks compare what they issue, and operations wait for each other as NCCL's do:
  // one after the other on each group and on each pair of ranks; a send waits for its receive. For tests, on
  // CPU. Also switched on by EE_COMM_STRICT=1.
  bool strict = false;
};

class World {
 public:
  struct State;
  // Returns when all ranks are there. A single process needs no network; several ignore SIGPIPE from here on.
  // UserError or CommError.
  explicit World(const LaunchInfo& launch, const WorldOptions& options = {});
  // Leaves. Rank 0 leaves last: it waits until all others have left or one is lost. During an exception it
  // tells the others that this rank failed, and does not wait.
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const;
  int size() const;
  const LaunchInfo& launch() const;
  at::Device device() const;
  bool strict() const;

  // The group of these world ranks, this one among them; returns when all of them have called it. `name` is
  // for messages and must be new, and the same on all its ranks: "tp.0".
  Group make_group(const std::string& name, const std::vector<int>& ranks);

  // What the run is doing, for messages: "step 12". Any thread.
  void set_context(std::string context);

  // CommError if a rank is known to be lost. Operations do this by themselves; call it in long stretches of
  // work without any. A process that does not end within a quarter of peer_timeout after a loss is ended with
  // exit code 75 and the same message.
  void check() const;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace ee::comm
