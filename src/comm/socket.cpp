#include "socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "ee/base/error.h"

namespace ee::comm {

namespace {

constexpr std::size_t kHeaderBytes = 4 + 1 + 4;  // length of the text, kind, rank
constexpr uint32_t kMaxText = 1 << 20;
constexpr std::chrono::seconds kNamePatience(4);

int milliseconds_until(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
}

bool wait_for(int descriptor, short events, Clock::time_point deadline) {
  pollfd entry{descriptor, events, 0};
  for (;;) {
    const int result = ::poll(&entry, 1, milliseconds_until(deadline));
    if (result > 0) return true;
    if (result < 0 && errno != EINTR) return false;
    if (Clock::now() >= deadline) return false;
  }
}

void set_no_delay(int descriptor) {
  const int on = 1;
  ::setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

Attempt try_connect(const addrinfo& address, Clock::time_point deadline) {
  Socket socket(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.open()) return {.socket = {}, .error = errno};
  if (::connect(socket.descriptor(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return {.socket = {}, .error = errno};
    if (!wait_for(socket.descriptor(), POLLOUT, deadline)) return {.socket = {}, .error = ETIMEDOUT};
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    if (error != 0) return {.socket = {}, .error = error};
  }
  set_no_delay(socket.descriptor());
  return {.socket = std::move(socket)};
}

using NameOf = int (*)(int, sockaddr*, socklen_t*);  // getsockname or getpeername

std::string numeric_address(int descriptor, NameOf name_of) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  char host[NI_MAXHOST] = "";
  if (name_of(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0)
    ::getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  // An IPv4 address as a socket of both families shows it.
  const std::string_view text = host, prefix = "::ffff:";
  return std::string(text.starts_with(prefix) ? text.substr(prefix.size()) : text);
}

// In network order.
in_port_t& port_of(sockaddr_storage& address) {
  return address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                       : reinterpret_cast<sockaddr_in&>(address).sin_port;
}

sockaddr_storage with_port(const addrinfo& address, int port) {
  sockaddr_storage result{};
  std::memcpy(&result, address.ai_addr, address.ai_addrlen);
  port_of(result) = htons(static_cast<uint16_t>(port));
  return result;
}

// Listens at one address; errno where that fails.
int listen_there(const sockaddr* address, socklen_t size, Listener& listener) {
  Socket socket(::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.open()) return errno;
  const int on = 1, off = 0;
  ::setsockopt(socket.descriptor(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);  // just after another run
  if (address->sa_family == AF_INET6)
    ::setsockopt(socket.descriptor(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  sockaddr_storage bound{};
  socklen_t bound_size = sizeof bound;
  if (::bind(socket.descriptor(), address, size) != 0 || ::listen(socket.descriptor(), SOMAXCONN) != 0 ||
      ::getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&bound), &bound_size) != 0)
    return errno;
  listener = {std::move(socket), ntohs(port_of(bound))};
  return 0;
}

int listen_everywhere(int port, Listener& listener) {
  sockaddr_in6 both{};
  both.sin6_family = AF_INET6;
  both.sin6_addr = in6addr_any;
  both.sin6_port = htons(static_cast<uint16_t>(port));
  const int error = listen_there(reinterpret_cast<sockaddr*>(&both), sizeof both, listener);
  if (error != EAFNOSUPPORT && error != EADDRNOTAVAIL) return error;
  sockaddr_in old{};  // a machine without IPv6
  old.sin_family = AF_INET;
  old.sin_port = htons(static_cast<uint16_t>(port));
  return listen_there(reinterpret_cast<sockaddr*>(&old), sizeof old, listener);
}

}  // namespace

void Socket::close() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

std::string Socket::local_address() const { return numeric_address(descriptor_, &::getsockname); }
std::string Socket::peer_address() const { return numeric_address(descriptor_, &::getpeername); }

bool Socket::wait_readable(Clock::time_point deadline) const {
  return wait_for(descriptor_, POLLIN, deadline);
}

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

std::string endpoint(const std::string& host, int port) {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

HostAddresses::HostAddresses(const std::string& host, int port, const std::string& meaning) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  const auto deadline = Clock::now() + kNamePatience;
  while (const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found_)) {
    if (Clock::now() >= deadline)
      throw base::UserError(
          "{} {} (port {}) does not resolve: {}; "
          "set MASTER_ADDR on all ranks to a name or an address of rank 0's machine that all machines know",
          meaning, host, port, error == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(error));
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

HostAddresses::~HostAddresses() {
  if (found_) ::freeaddrinfo(found_);
}

bool HostAddresses::any_here() const {
  for (const addrinfo* address = found_; address; address = address->ai_next) {
    const sockaddr_storage any_port = with_port(*address, 0);
    const Socket socket(::socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(socket.descriptor(), reinterpret_cast<const sockaddr*>(&any_port), address->ai_addrlen) == 0)
      return true;
  }
  return false;
}

Listener listen_at(const HostAddresses& addresses, bool loopback, int port) {
  Listener listener;
  int error = 0;
  if (loopback) {
    for (const addrinfo* address = addresses.first(); address && !listener.socket.open();
         address = address->ai_next) {
      const sockaddr_storage there = with_port(*address, port);
      error = listen_there(reinterpret_cast<const sockaddr*>(&there), address->ai_addrlen, listener);
    }
  } else {
    error = listen_everywhere(port, listener);
  }
  if (listener.socket.open()) return listener;
  throw base::UserError(
      "rank 0 cannot listen for the other ranks at port {} (MASTER_PORT): {}; {}", port, std::strerror(error),
      error == EADDRINUSE ? "set MASTER_PORT on all ranks to a free one (`ss -ltnp` shows who has it)"
                          : "set MASTER_ADDR and MASTER_PORT on all ranks to rank 0's machine "
                            "and a free port from 1024 on");
}

std::optional<Socket> accept_from(const Socket& listener, Clock::time_point deadline) {
  if (!wait_for(listener.descriptor(), POLLIN, deadline)) return std::nullopt;
  const int descriptor = ::accept4(listener.descriptor(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (descriptor < 0) return std::nullopt;
  set_no_delay(descriptor);
  return Socket(descriptor);
}

Attempt connect_to(const HostAddresses& addresses, Clock::time_point deadline) {
  Attempt attempt{.socket = {}, .error = EADDRNOTAVAIL};
  for (const addrinfo* address = addresses.first(); address && !attempt.socket; address = address->ai_next)
    attempt = try_connect(*address, deadline);
  return attempt;
}

bool Channel::send(const Message& message) {
  if (!open() || !can_send_) return false;
  const uint32_t length = static_cast<uint32_t>(std::min<std::size_t>(message.text.size(), kMaxText));
  std::string bytes(kHeaderBytes, '\0');
  std::memcpy(bytes.data(), &length, 4);
  bytes[4] = static_cast<char>(message.kind);
  std::memcpy(bytes.data() + 5, &message.rank, 4);
  bytes.append(message.text, 0, length);
  const auto deadline = Clock::now() + std::chrono::seconds(1);
  for (std::size_t sent = 0; sent < bytes.size();) {
    const ssize_t count =
        ::send(socket_.descriptor(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count > 0) {
      sent += static_cast<std::size_t>(count);
    } else if (errno != EINTR && (errno != EAGAIN || !wait_for(socket_.descriptor(), POLLOUT, deadline))) {
      return can_send_ = false;
    }
  }
  return true;
}

// Reads what is there; false at the end of the stream.
bool Channel::fill() {
  char buffer[16384];
  for (;;) {
    const ssize_t count = ::recv(socket_.descriptor(), buffer, sizeof buffer, 0);
    if (count > 0)
      received_.append(buffer, static_cast<std::size_t>(count));
    else if (count < 0 && errno == EINTR)
      continue;
    else
      return count < 0 && errno == EAGAIN;
  }
}

std::optional<Message> Channel::take() {
  if (received_.size() < kHeaderBytes) return std::nullopt;
  uint32_t length = 0;
  Message message;
  std::memcpy(&length, received_.data(), 4);
  message.kind = static_cast<MessageKind>(received_[4]);
  std::memcpy(&message.rank, received_.data() + 5, 4);
  broken_ = broken_ || length > kMaxText || message.kind > MessageKind::kVerdict;
  if (broken_ || received_.size() < kHeaderBytes + length) return std::nullopt;
  message.text = received_.substr(kHeaderBytes, length);
  received_.erase(0, kHeaderBytes + length);
  return message;
}

bool Channel::receive(std::vector<Message>& messages) {
  if (!open()) return false;
  const bool more = fill();
  while (auto message = take()) messages.push_back(std::move(*message));
  return more && !broken_;
}

std::optional<Message> Channel::receive_one(Clock::time_point deadline) {
  for (bool more = true;;) {
    if (auto message = take()) return message;
    if (broken_ || !more || !open() || !socket_.wait_readable(deadline)) return std::nullopt;
    more = fill();
  }
}

}  // namespace ee::comm
