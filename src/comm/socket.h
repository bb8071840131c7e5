// TCP between the ranks, for small messages with deadlines: what the watch speaks. Tensors go through c10d.
#pragma once

#include <netdb.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ee::comm {

using Clock = std::chrono::steady_clock;

class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  ~Socket() { close(); }
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }

  bool open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }
  void close();

  // Numeric, IPv6 without brackets: the address by which the other side reaches us, and the other side's.
  std::string local_address() const;
  std::string peer_address() const;
  bool wait_readable(Clock::time_point deadline) const;

 private:
  int descriptor_ = -1;
};

bool is_loopback(const std::string& address);  // "localhost", 127.x.x.x, ::1

std::string endpoint(const std::string& host, int port);  // "node1:29500", "[fd00::1]:29500"

// Where a host is. Tries for some seconds, as names may be made while their machines start.
class HostAddresses {
 public:
  // UserError: `host`, which is `meaning` ("MASTER_ADDR"), is no address and no known name.
  HostAddresses(const std::string& host, int port, const std::string& meaning);
  ~HostAddresses();
  HostAddresses(const HostAddresses&) = delete;
  HostAddresses& operator=(const HostAddresses&) = delete;

  const addrinfo* first() const { return found_; }
  bool any_here() const;  // one of them is this machine's

 private:
  addrinfo* found_ = nullptr;
};

struct Listener {
  Socket socket;
  int port = 0;
};
// For the ranks of all machines, over IPv6 and IPv4; with `loopback` at the first of `addresses` alone. Port
// 0: any free one. UserError: the port is taken or not allowed.
Listener listen_at(const HostAddresses& addresses, bool loopback, int port);
std::optional<Socket> accept_from(const Socket& listener, Clock::time_point deadline);

// One try at each of the addresses; otherwise errno of the last.
struct Attempt {
  std::optional<Socket> socket;
  int error = 0;
};
Attempt connect_to(const HostAddresses& addresses, Clock::time_point deadline);

enum class MessageKind : uint8_t {
  kHello,    // rank -> hub: rank, which run it means
  kHeard,    // hub -> rank: at once; the port of the store
  kRefused,  // hub -> rank: the user's mistake that the meeting shows
  kWelcome,  // hub -> rank: all are there; an address of the hub's machine that other machines reach
  kBeat,     // both ways: what the sender is doing
  kFailed,   // rank -> hub: why the sender gives up
  kLeft,     // rank -> hub: the sender has finished; hub -> ranks: `rank` has
  kVerdict   // hub -> ranks: the run is over because of `rank`
};

struct Message {
  MessageKind kind{};
  int32_t rank = 0;
  std::string text;
};

// A stream of messages in both directions.
class Channel {
 public:
  Channel() = default;
  explicit Channel(Socket socket) : socket_(std::move(socket)) {}

  bool open() const { return socket_.open(); }
  const Socket& socket() const { return socket_; }
  void close() { socket_.close(); }

  // False if the other side is gone or takes nothing for a second; then nothing more is sent, but what has
  // arrived can still be received.
  bool send(const Message& message);
  // Appends what has arrived, without waiting; false when the other side has closed or speaks another
  // language.
  bool receive(std::vector<Message>& messages);
  std::optional<Message> receive_one(Clock::time_point deadline);

 private:
  bool fill();
  std::optional<Message> take();

  Socket socket_;
  std::string received_;
  bool can_send_ = true, broken_ = false;
};

}  // namespace ee::comm
