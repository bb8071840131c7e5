#include "meeting.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>

#include "ee/base/error.h"
#include "ee/base/text.h"
#include "ee/comm/error.h"

namespace ee::comm {

namespace {

using base::UserError;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kAnswerPatience(8);  // for a word of whoever has accepted a connection
constexpr seconds kWrongPatience(5);   // how long what is wrong must stay so
constexpr seconds kNotice(10);         // after which a rank says what it waits for

constexpr const char* kSetMaster =
    "set MASTER_ADDR on all ranks to a name or an address of rank 0's machine, and MASTER_PORT to a free "
    "port of it";

double in_seconds(milliseconds duration) { return std::chrono::duration<double>(duration).count(); }

std::string meaning(const LaunchInfo& launch) {
  return launch.launcher == Launcher::kTorchrun || read_environment("MASTER_ADDR")
             ? "MASTER_ADDR"
             : "the first host of Slurm's list";
}

// Which run a rank belongs to, as far as the ranks know that before they have met.
std::string run_of(const LaunchInfo& launch) {
  return fmt::format("{}/{}", launch.world_size, launch.attempt.empty() ? "0" : launch.attempt);
}

// The machine of a rank that is taken to be alone there; "-" where the launcher has told its place.
std::string own_machine(const LaunchInfo& launch) {
  char name[256] = "";
  return launch.local_assumed && ::gethostname(name, sizeof name - 1) == 0 ? name : "-";
}

}  // namespace

// Rank 0 ------------------------------------------------------------

// "localhost" is also what some of Kubernetes' operators tell rank 0 alone, and its service's name the
// others.
MeetingHost::MeetingHost(const LaunchInfo& launch)
    : launch_(launch),
      addresses_(launch.master_addr, launch.master_port, meaning(launch)),
      listener_(listen_at(addresses_,
                          is_loopback(launch.master_addr) && launch.local_world_size == launch.world_size,
                          launch.agent_store ? 0 : launch.master_port)) {
  if (!launch.agent_store && !addresses_.any_here()) check_address();
}

// MASTER_ADDR is none of this machine's addresses. It may be one that is translated: then it leads here.
void MeetingHost::check_address() {
  const std::string token = fmt::format("{:08x}{:08x}", std::random_device()(), std::random_device()());
  const auto deadline = Clock::now() + seconds(3);
  Attempt attempt = connect_to(addresses_, deadline);
  if (attempt.socket) {
    Channel(std::move(*attempt.socket)).send({MessageKind::kHello, 0, token});
    while (auto socket = accept_from(listener_.socket, deadline)) {  // other ranks in between come again
      const auto hello = Channel(std::move(*socket)).receive_one(deadline);
      if (hello && hello->text == token) return;
    }
  }
  throw UserError("{} {} is no address of the machine of rank 0 and does not lead to it (port {}: {}); {}",
                  meaning(launch_), launch_.master_addr, launch_.master_port,
                  attempt.error != 0 ? std::strerror(attempt.error) : "somebody else answers", kSetMaster);
}

Meeting MeetingHost::meet(int store_port, milliseconds patience) {
  const std::string place = endpoint(launch_.master_addr, port());
  const auto start = Clock::now();
  bool told = false;
  machines_.emplace(own_machine(launch_), 0);
  while (joined_.size() + 1 < static_cast<size_t>(launch_.world_size)) {
    if (Clock::now() - start > patience)
      throw CommError(fmt::format(
          "rank 0 waited {:.0f} s at {}, but of {} ranks these did not come: {}; their own messages "
          "say why, or nobody started them",
          in_seconds(patience), place, launch_.world_size, missing()));
    if (!told && Clock::now() - start > kNotice) {
      told = true;
      fmt::print(stderr, "rank 0 waits at {} for ranks {}\n", place, missing());
    }
    receive_hellos(store_port);
  }
  std::string address = launch_.master_addr == "::1" ? launch_.master_addr : "127.0.0.1";
  for (const auto& [rank, channel] : joined_)
    if (const auto local = channel.socket().local_address(); !is_loopback(local)) address = local;
  for (auto& [rank, channel] : joined_) channel.send({MessageKind::kWelcome, 0, address});
  return {std::move(joined_), address};
}

// Waits for a moment. Whoever connects and says nothing keeps nobody else waiting.
void MeetingHost::receive_hellos(int store_port) {
  std::vector<pollfd> entries = {{listener_.socket.descriptor(), POLLIN, 0}};
  for (const auto& stranger : strangers_)
    entries.push_back({stranger.channel.socket().descriptor(), POLLIN, 0});
  ::poll(entries.data(), entries.size(), 100);
  while (auto socket = accept_from(listener_.socket, Clock::now()))
    strangers_.push_back({Channel(std::move(*socket)), Clock::now() + kAnswerPatience});
  for (auto stranger = strangers_.begin(); stranger != strangers_.end();) {
    std::vector<Message> messages;
    const bool open = stranger->channel.receive(messages);
    if (!messages.empty()) greet(std::move(stranger->channel), messages.front(), store_port);
    const bool done = !messages.empty() || !open || Clock::now() > stranger->until;
    stranger = done ? strangers_.erase(stranger) : std::next(stranger);
  }
}

std::string MeetingHost::missing() const {
  std::vector<int> ranks;
  for (int rank = 1; rank < launch_.world_size; ++rank)
    if (!joined_.contains(rank)) ranks.push_back(rank);
  return fmt::format("{}", fmt::join(ranks, ", "));
}

void MeetingHost::greet(Channel channel, const Message& hello, int store_port) {
  const auto words = base::split(hello.text, ' ');
  if (hello.kind != MessageKind::kHello || hello.rank == 0 || words.size() != 2) return;  // not one of ours
  const auto refuse = [&](const std::string& why) { channel.send({MessageKind::kRefused, 0, why}); };
  if (words[0] != run_of(launch_) || hello.rank < 0 || hello.rank >= launch_.world_size)
    return refuse(
        fmt::format("another run uses the port (WORLD_SIZE/attempt are {} there and {} here); "
                    "set MASTER_PORT of one of them to another port",
                    run_of(launch_), words[0]));
  if (const auto before = joined_.find(hello.rank); before != joined_.end()) {
    std::vector<Message> none;
    if (before->second.receive(none))
      return refuse(fmt::format(
          "a rank {} has come already; give each process a rank of its own, and each run its own MASTER_PORT",
          hello.rank));
    joined_.erase(before);  // it died, and has been started again
  }
  check_machine(channel, hello.rank, words[1]);
  channel.send({MessageKind::kHeard, 0, std::to_string(store_port)});
  joined_.emplace(hello.rank, std::move(channel));
}

// Two ranks that take themselves for alone would use the same GPU, and twice the cores.
void MeetingHost::check_machine(Channel& channel, int rank, const std::string& machine) {
  const auto [other, first] = machines_.emplace(machine, rank);
  if (first || machine == "-" || other->second == rank) return;
  const std::string text = fmt::format(
      "ranks {} and {} are both on {}, and nothing tells their places there; "
      "set LOCAL_RANK (0, 1, ... on each machine) and LOCAL_WORLD_SIZE (ranks on the machine), or start them "
      "with torchrun",
      other->second, rank, machine);
  channel.send({MessageKind::kRefused, 0, text});
  for (auto& [joined, their] : joined_) their.send({MessageKind::kRefused, 0, text});
  throw UserError("{}", text);
}

// The others ------------------------------------------------------------

Approach::Approach(const LaunchInfo& launch, int port, milliseconds patience)
    : launch_(launch),
      port_(port),
      patience_(patience),
      addresses_(launch.master_addr, port, meaning(launch)) {}

Socket Approach::connect() {
  for (;;) {
    Attempt attempt = connect_to(addresses_, std::min(Clock::now() + seconds(3), deadline()));
    if (attempt.socket) return std::move(*attempt.socket);
    give_up_or_wait(attempt.error);
    std::this_thread::sleep_for(milliseconds(50));
  }
}

// Refused means that rank 0 may still come. Where no way leads, it never will.
void Approach::give_up_or_wait(int error) {
  const bool no_way = error == ENETUNREACH || error == EHOSTUNREACH || error == EADDRNOTAVAIL ||
                      error == EAFNOSUPPORT || error == EINVAL || error == EACCES;
  if (!no_way) unreachable_since_.reset();
  if (no_way && !unreachable_since_) unreachable_since_ = Clock::now();
  if (unreachable_since_ && Clock::now() - *unreachable_since_ >= kWrongPatience)
    throw UserError("rank {} cannot reach rank 0 at {} (MASTER_ADDR, MASTER_PORT): {}; {}", launch_.rank,
                    place(), std::strerror(error), kSetMaster);
  if (Clock::now() >= deadline())
    throw CommError(fmt::format(
        "rank {} of {} waited {:.0f} s for rank 0 at {} (MASTER_ADDR, MASTER_PORT): {}; was rank 0 "
        "started, and is the address right on all ranks?",
        launch_.rank, launch_.world_size, in_seconds(patience_), place(), std::strerror(error)));
  if (!told_ && Clock::now() - start_ >= kNotice) {
    told_ = true;
    fmt::print(stderr,
               "rank {} waits for rank 0 at {} (MASTER_ADDR, MASTER_PORT): {}; it does so for {:.0f} s\n",
               launch_.rank, place(), std::strerror(error), in_seconds(patience_));
  }
}

MeetingGuest::MeetingGuest(const LaunchInfo& launch, int port, milliseconds patience)
    : launch_(launch), approach_(launch, port, patience) {
  while (!try_once()) std::this_thread::sleep_for(milliseconds(50));
}

bool MeetingGuest::try_once() {
  channel_ = Channel(approach_.connect());
  const auto begin = Clock::now();
  channel_.send({MessageKind::kHello, launch_.rank, run_of(launch_) + " " + own_machine(launch_)});
  const auto answer = channel_.receive_one(Clock::now() + kAnswerPatience);
  if (answer && answer->kind == MessageKind::kHeard) {
    store_port_ = std::stoi(answer->text);
    return true;
  }
  if (answer && answer->kind == MessageKind::kRefused)
    throw UserError("rank 0 at {}: {}", approach_.place(), answer->text);
  if (!strange_until_ || begin - *strange_until_ > seconds(1)) strange_since_ = begin;
  strange_until_ = Clock::now();
  if (answer || *strange_until_ - strange_since_ >= kWrongPatience)
    throw UserError("rank {}: what answers at {} (MASTER_ADDR, MASTER_PORT) is not rank 0 of this run; {}",
                    launch_.rank, approach_.place(), kSetMaster);
  return false;  // a rank 0 that has just ended, perhaps to start again
}

Meeting MeetingGuest::meet() {
  const auto answer = channel_.receive_one(approach_.deadline() + kAnswerPatience);
  if (answer && answer->kind == MessageKind::kRefused) throw UserError("{}", answer->text);
  if (!answer || answer->kind != MessageKind::kWelcome)
    throw CommError(
        fmt::format("rank {}: the {} ranks have not all come to {}; rank 0 says which are missing",
                    launch_.rank, launch_.world_size, approach_.place()));
  std::string address = channel_.socket().local_address();
  if (is_loopback(address)) address = answer->text;
  Meeting meeting{.channels = {}, .address = address};
  meeting.channels.emplace(0, std::move(channel_));
  return meeting;
}

}  // namespace ee::comm
