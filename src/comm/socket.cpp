#include "socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "ee/base/error.h"

namespace ee::comm {

namespace {

constexpr std::size_t kHeaderBytes = 4 + 1 + 4;  // length of the text, kind, rank
constexpr uint32_t kMaxText = 1 << 20;

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

std::optional<Socket> try_connect(const addrinfo& address, Clock::time_point deadline) {
  Socket socket(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.open()) return std::nullopt;
  if (::connect(socket.descriptor(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS || !wait_for(socket.descriptor(), POLLOUT, deadline)) return std::nullopt;
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0)
      return std::nullopt;
  }
  set_no_delay(socket.descriptor());
  return socket;
}

}  // namespace

void Socket::close() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

std::string Socket::local_address() const {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  char host[NI_MAXHOST] = "";
  if (::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size) == 0)
    ::getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  return host;
}

bool Socket::wait_readable(Clock::time_point deadline) const {
  return wait_for(descriptor_, POLLIN, deadline);
}

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

Listener listen_on_any_port(bool loopback_only) {
  Listener listener{Socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)), 0};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(loopback_only ? INADDR_LOOPBACK : INADDR_ANY);
  socklen_t size = sizeof address;
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  const int descriptor = listener.socket.descriptor();
  if (::bind(descriptor, raw, size) != 0 || ::listen(descriptor, SOMAXCONN) != 0 ||
      ::getsockname(descriptor, raw, &size) != 0)
    throw base::UserError("cannot listen for the other ranks: {}", std::strerror(errno));
  listener.port = ntohs(address.sin_port);
  return listener;
}

std::optional<Socket> accept_from(const Socket& listener, Clock::time_point deadline) {
  if (!wait_for(listener.descriptor(), POLLIN, deadline)) return std::nullopt;
  const int descriptor = ::accept4(listener.descriptor(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (descriptor < 0) return std::nullopt;
  set_no_delay(descriptor);
  return Socket(descriptor);
}

std::optional<Socket> connect_to(const std::string& host, int port, Clock::time_point deadline) {
  do {
    addrinfo hints{}, *found = nullptr;
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) == 0) {
      const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
      for (const addrinfo* address = found; address; address = address->ai_next)
        if (auto socket = try_connect(*address, deadline)) return socket;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  } while (Clock::now() < deadline);
  return std::nullopt;
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
