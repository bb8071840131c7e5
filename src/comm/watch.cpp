#include "watch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "ee/base/text.h"
#include "ee/comm/error.h"

namespace ee::comm {

namespace {

constexpr std::size_t kTableRanks = 16;  // a thousand ranks' doings help nobody

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// The verdict's two texts in one message.
std::string pack(const Verdict& verdict) { return verdict.cause + '\0' + verdict.table; }
Verdict unpack(const Message& message) {
  const std::size_t end = message.text.find('\0');
  if (end == std::string::npos) return {message.rank, message.text, ""};
  return {message.rank, message.text.substr(0, end), message.text.substr(end + 1)};
}

}  // namespace

std::string in_words(const Verdict& verdict, const std::string& doing, int rank) {
  return fmt::format("{}, on rank {}: rank {} {}{}{}", doing, rank, verdict.rank, verdict.cause,
                     verdict.table.empty() ? "" : "\nWhat the ranks were doing:\n", verdict.table);
}

Watch::Watch(const LaunchInfo& launch, const WorldOptions& options, Describe describe)
    : launch_(launch),
      options_(options),
      describe_(std::move(describe)),
      beat_interval_(std::clamp<std::chrono::milliseconds>(
          options.peer_timeout / 20, std::chrono::milliseconds(20), std::chrono::milliseconds(500))),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Watch::~Watch() {
  if (wake_ >= 0) ::close(wake_);
}

std::shared_ptr<Watch> Watch::start(const LaunchInfo& launch, const WorldOptions& options, Meeting meeting,
                                    Describe describe) {
  auto watch = std::make_shared<Watch>(launch, options, std::move(describe));
  watch->address_ = meeting.address;
  for (auto& [rank, channel] : meeting.channels) watch->peers_.push_back({rank, std::move(channel)});
  watch->thread_ = std::thread([watch] { watch->run(); });
  return watch;
}

std::optional<Verdict> Watch::verdict() const {
  const std::lock_guard lock(mutex_);
  return verdict_;
}

std::optional<Verdict> Watch::wait_for_verdict(std::chrono::milliseconds limit) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, limit, [&] { return verdict_.has_value(); });
  return verdict_;
}

std::optional<Verdict> Watch::wait_for_news(const std::vector<int>& ranks,
                                            std::chrono::milliseconds limit) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, limit, [&] { return verdict_ || find_left(ranks); });
  return verdict_;
}

std::optional<int> Watch::any_left(const std::vector<int>& ranks) const {
  const std::lock_guard lock(mutex_);
  return find_left(ranks);
}

std::optional<int> Watch::find_left(const std::vector<int>& ranks) const {
  for (const int rank : ranks)
    if (left_.contains(rank)) return rank;
  return std::nullopt;
}

void Watch::report_failure(const std::string& cause) {
  const std::lock_guard lock(mutex_);
  if (!verdict_ && !failure_) failure_ = cause;
  ::eventfd_write(wake_, 1);
}

void Watch::leave() {
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
    ::eventfd_write(wake_, 1);
  }
  thread_.join();
}

void Watch::detach() {
  thread_.detach();
  wait_for_verdict(std::chrono::seconds(1));  // of our own failure, or of the one before
}

// The thread ------------------------------------------------------------

void Watch::run() {
  auto next_beat = Clock::now();
  while (!finished()) {
    wait_for_messages(next_beat);
    for (auto& peer : peers_) receive_from(peer);
    serve_requests();
    if (Clock::now() >= next_beat) {
      send_beats();
      find_silent();
      interrupt_waits_for_the_left();
      next_beat = Clock::now() + beat_interval_;
    }
    end_process_if_overdue();
  }
}

bool Watch::finished() {
  const std::lock_guard lock(mutex_);
  if (!left_sent_) return false;
  return !hub() || verdict_ || std::ranges::all_of(peers_, [&](const Peer& peer) {
    return peer.closed || left_.contains(peer.rank);
  });
}

void Watch::wait_for_messages(Clock::time_point deadline) {
  std::vector<pollfd> entries = {{wake_, POLLIN, 0}};
  for (const auto& peer : peers_)
    if (!peer.closed) entries.push_back({peer.channel.socket().descriptor(), POLLIN, 0});
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  ::poll(entries.data(), entries.size(), static_cast<int>(std::max<int64_t>(left, 0)));
  eventfd_t ignored;
  ::eventfd_read(wake_, &ignored);
}

void Watch::receive_from(Peer& peer) {
  if (peer.closed) return;
  std::vector<Message> messages;
  const bool open = peer.channel.receive(messages);
  if (!messages.empty()) peer.heard = Clock::now();
  for (const auto& message : messages) handle(peer, message);
  if (open) return;
  peer.closed = true;
  peer.channel.close();
  if (!any_left({peer.rank})) declare(peer.rank, "was lost: its process ended (its connection closed)");
}

void Watch::handle(Peer& peer, const Message& message) {
  switch (message.kind) {
    case MessageKind::kBeat:
      peer.doing = message.text;
      break;
    case MessageKind::kFailed:
      declare(peer.rank, "failed: " + message.text);
      break;
    case MessageKind::kVerdict:
      set_verdict(unpack(message));
      break;
    case MessageKind::kLeft:
      mark_left(hub() ? peer.rank : message.rank);
      if (hub()) tell_ranks({MessageKind::kLeft, peer.rank, ""});
      break;
    case MessageKind::kHello:
    case MessageKind::kHeard:
    case MessageKind::kRefused:
    case MessageKind::kWelcome:
      break;  // only while meeting
  }
}

void Watch::serve_requests() {
  std::optional<std::string> failure;
  bool leave = false;
  {
    const std::lock_guard lock(mutex_);
    failure.swap(failure_);
    leave = leaving_ && !left_sent_;
    left_sent_ = left_sent_ || leave;
  }
  const bool told =
      failure && !hub() && peers_[0].channel.send({MessageKind::kFailed, launch_.rank, *failure});
  if (failure && !told) declare(launch_.rank, "failed: " + *failure);
  if (leave) tell_ranks({MessageKind::kLeft, launch_.rank, ""});
}

void Watch::send_beats() { tell_ranks({MessageKind::kBeat, launch_.rank, describe_()}); }

void Watch::find_silent() {
  for (const auto& peer : peers_) {
    const auto silence = Clock::now() - peer.heard;
    if (peer.closed || silence < silence_limit() || any_left({peer.rank})) continue;
    declare(peer.rank,
            fmt::format("was lost: no sign of life for {:.1f} s (stopped, or its machine unreachable)",
                        seconds(silence)));
  }
}

void Watch::declare(int rank, const std::string& cause) {
  if (verdict()) return;
  const Verdict verdict{rank, cause, describe_all()};
  set_verdict(verdict);
  if (hub()) tell_ranks({MessageKind::kVerdict, rank, pack(verdict)});
}

void Watch::set_verdict(Verdict verdict) {
  const std::lock_guard lock(mutex_);
  if (verdict_) return;
  verdict_ = std::move(verdict);
  verdict_time_ = Clock::now();
  for (const auto& interest : interests_) interest.interrupt();
  changed_.notify_all();
}

void Watch::mark_left(int rank) {
  const std::lock_guard lock(mutex_);
  left_.emplace(rank, Clock::now());
  changed_.notify_all();
}

void Watch::tell_ranks(const Message& message) {
  for (auto& peer : peers_)
    if (!peer.closed) peer.channel.send(message);
}

// What a rank sent before it left may still be on its way; what has not come after the limit never will.
void Watch::interrupt_waits_for_the_left() {
  const std::lock_guard lock(mutex_);
  for (const auto& [rank, when] : left_) {
    if (Clock::now() - when < silence_limit()) continue;
    for (const auto& interest : interests_)
      if (std::ranges::count(interest.ranks, rank)) interest.interrupt();
  }
}

// A thread that computes, or waits inside a library, cannot be interrupted: then the process must end.
void Watch::end_process_if_overdue() {
  const auto verdict = this->verdict();
  const auto grace = options_.peer_timeout / (announced_ ? 2 : 4);
  if (!verdict || Clock::now() - verdict_time_ < grace) return;
  {
    const std::lock_guard lock(mutex_);
    if (leaving_) return;  // a rank 0 that has finished only waited for the others
  }
  if (!announced_) fmt::print(stderr, "error: {}\n", in_words(*verdict, describe_(), launch_.rank));
  std::fflush(stderr);
  ::_exit(base::kExitTemporaryFailure);
}

std::string Watch::describe_all() const {
  std::vector<std::string> lines = {fmt::format("  rank {}: {}", launch_.rank, describe_())};
  for (std::size_t i = 0; i < peers_.size() && i < kTableRanks; ++i)
    lines.push_back(fmt::format("  rank {}: {}", peers_[i].rank,
                                any_left({peers_[i].rank}) ? "has left the run" : peers_[i].doing));
  if (peers_.size() > kTableRanks)
    lines.push_back(fmt::format("  and {} more ranks", peers_.size() - kTableRanks));
  return base::join(lines, "\n");
}

Watch::Interest::Interest(Watch& watch, std::vector<int> ranks, std::function<void()> interrupt)
    : watch_(watch) {
  const std::lock_guard lock(watch_.mutex_);
  if (watch_.verdict_) interrupt();
  entry_ = watch_.interests_.insert(watch_.interests_.end(), {std::move(ranks), std::move(interrupt)});
}

Watch::Interest::~Interest() {
  const std::lock_guard lock(watch_.mutex_);
  watch_.interests_.erase(entry_);
}

}  // namespace ee::comm
