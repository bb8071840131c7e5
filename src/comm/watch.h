// Knows within moments when a rank dies, stops or gives up, and tells all others why. Each rank keeps one TCP
// connection to rank 0, the hub, and one thread that sends heartbeats over it: a closed connection is a dead
// process, silence a stopped one or a lost machine. The first loss is the run's verdict, the same on all
// ranks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "ee/comm/world.h"
#include "meeting.h"
#include "socket.h"

namespace ee::comm {

struct Verdict {
  int rank = 0;       // whom the run lost
  std::string cause;  // "was lost: its process ended (its connection closed)"
  std::string table;  // what each rank was doing, one line each; may be empty
};

// "<doing>, on rank 1: rank 2 was lost: ..." and the table.
std::string in_words(const Verdict& verdict, const std::string& doing, int rank);

class Watch : public std::enable_shared_from_this<Watch> {
 public:
  using Describe = std::function<std::string()>;  // what this rank is doing; called by the watch's thread

  static std::shared_ptr<Watch> start(const LaunchInfo& launch, const WorldOptions& options, Meeting meeting,
                                      Describe describe);
  Watch(const LaunchInfo& launch, const WorldOptions& options, Describe describe);
  ~Watch();

  // This machine's address for the other ranks.
  const std::string& address() const { return address_; }

  std::optional<Verdict> verdict() const;
  std::optional<Verdict> wait_for_verdict(std::chrono::milliseconds limit) const;
  // Also returns when one of `ranks` has left.
  std::optional<Verdict> wait_for_news(const std::vector<int>& ranks, std::chrono::milliseconds limit) const;
  std::optional<int> any_left(const std::vector<int>& ranks) const;  // one of them that has left the run

  // This rank gives up because of `cause`: becomes the verdict unless there is one. Returns at once.
  void report_failure(const std::string& cause);
  // The program is about to print the error: the watch need not, and gives it more time to end.
  void announce() { announced_ = true; }

  // Ends the watch. Rank 0 waits until all others have left, or for a verdict.
  void leave();
  // After a failure: returns when the others have been told; the thread stays to end this process if need be.
  void detach();

  // How long after a failed operation a verdict can still come.
  std::chrono::milliseconds silence_limit() const { return options_.peer_timeout / 2; }

  // While it lives, a verdict, or the long absence of one of `ranks` that left, calls `interrupt` (once or
  // more, by the watch's thread, or at once).
  class Interest {
   public:
    Interest(Watch& watch, std::vector<int> ranks, std::function<void()> interrupt);
    ~Interest();
    Interest(const Interest&) = delete;
    Interest& operator=(const Interest&) = delete;

   private:
    Watch& watch_;
    struct Entry {
      std::vector<int> ranks;
      std::function<void()> interrupt;
    };
    friend class Watch;
    std::list<Entry>::iterator entry_;
  };

 private:
  struct Peer {
    int rank;
    Channel channel;
    Clock::time_point heard = Clock::now();
    std::string doing = "starting";
    bool closed = false;
  };

  bool hub() const { return launch_.rank == 0; }

  void run();
  bool finished();
  void wait_for_messages(Clock::time_point deadline);
  void receive_from(Peer& peer);
  void handle(Peer& peer, const Message& message);
  void serve_requests();
  void send_beats();
  void find_silent();
  void declare(int rank, const std::string& cause);
  void set_verdict(Verdict verdict);
  void mark_left(int rank);
  void tell_ranks(const Message& message);
  std::optional<int> find_left(const std::vector<int>& ranks) const;  // with the mutex held
  void interrupt_waits_for_the_left();
  void end_process_if_overdue();
  std::string describe_all() const;

  const LaunchInfo launch_;
  const WorldOptions options_;
  const Describe describe_;
  const std::chrono::milliseconds beat_interval_;
  std::string address_;
  std::vector<Peer> peers_;  // hub: all others; else: the hub. The thread's own once it runs

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::optional<Verdict> verdict_;
  Clock::time_point verdict_time_;
  std::map<int, Clock::time_point> left_;
  std::list<Interest::Entry> interests_;
  std::optional<std::string> failure_;  // to be reported
  bool leaving_ = false, left_sent_ = false;
  int wake_ = -1;  // eventfd: a request is waiting
  std::atomic<bool> announced_ = false;
  std::thread thread_;
};

}  // namespace ee::comm
