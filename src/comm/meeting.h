// How the ranks of a run find rank 0, and how a wrong address shows within seconds: by a message on every
// rank that can know it.
#pragma once

#include <chrono>
#include <list>
#include <map>
#include <optional>
#include <string>

#include "ee/comm/launch.h"
#include "socket.h"

namespace ee::comm {

// All ranks have come.
struct Meeting {
  std::map<int, Channel> channels;  // rank 0: to each other rank; the others: to rank 0
  std::string address;              // numeric: this machine's, for the other ranks
};

// Rank 0's side.
class MeetingHost {
 public:
  // Listens at MASTER_ADDR and MASTER_PORT, or at any port where torchrun's agent listens there. UserError:
  // the name is unknown, the port is taken.
  explicit MeetingHost(const LaunchInfo& launch);
  int port() const { return listener_.port; }

  // Returns when all have come; tells each at once `store_port`. UserError: MASTER_ADDR does not lead here,
  // or several ranks that are taken to be alone on their machines share one. CommError names those that have
  // not come within `patience`.
  Meeting meet(int store_port, std::chrono::milliseconds patience);

 private:
  struct Stranger {
    Channel channel;
    Clock::time_point until;
  };

  void check_address();
  void receive_hellos(int store_port);
  void greet(Channel channel, const Message& hello, int store_port);
  void check_machine(Channel& channel, int rank, const std::string& machine);
  std::string missing() const;

  const LaunchInfo& launch_;
  const HostAddresses addresses_;
  const Listener listener_;
  std::list<Stranger> strangers_;  // have connected, and not yet said who they are
  std::map<int, Channel> joined_;
  std::map<std::string, int> machines_;  // of ranks that are taken to be alone there
};

// The way to MASTER_ADDR.
class Approach {
 public:
  // UserError: the name is unknown.
  Approach(const LaunchInfo& launch, int port, std::chrono::milliseconds patience);

  // Until somebody accepts, as rank 0 may start late. UserError: no way leads there. CommError after
  // `patience`.
  Socket connect();
  std::string place() const { return endpoint(launch_.master_addr, port_); }
  Clock::time_point deadline() const { return start_ + patience_; }

 private:
  void give_up_or_wait(int error);

  const LaunchInfo& launch_;
  const int port_;
  const std::chrono::milliseconds patience_;
  const HostAddresses addresses_;
  const Clock::time_point start_ = Clock::now();
  std::optional<Clock::time_point> unreachable_since_;
  bool told_ = false;
};

// The other ranks' side, in two steps: rank 0 answers at once, and again when all have come.
class MeetingGuest {
 public:
  // Until rank 0 answers. Errors are Approach's, and UserError: something else answers, or rank 0 refuses.
  MeetingGuest(const LaunchInfo& launch, int port, std::chrono::milliseconds patience);
  int store_port() const { return store_port_; }
  std::string host_address() const { return channel_.socket().peer_address(); }  // numeric: rank 0's machine

  Meeting meet();  // CommError: not all came in time

 private:
  bool try_once();

  const LaunchInfo& launch_;
  Approach approach_;
  Clock::time_point strange_since_;  // somebody accepts who does not answer as rank 0
  std::optional<Clock::time_point> strange_until_;
  Channel channel_;
  int store_port_ = 0;
};

}  // namespace ee::comm
