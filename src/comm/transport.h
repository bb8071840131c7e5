// What this room needs of c10d, without c10d's headers (they cost 15 s a file): the key-value store that the
// ranks meet at, and one backend of process group. Only c10d_*.cpp see c10d.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <chrono>
#include <memory>
#include <string>

#include "ee/comm/group.h"
#include "ee/comm/launch.h"
#include "pending.h"

namespace ee::comm {

// c10d's TCPStore. Calls throw BackendError; get() waits up to `timeout` for the key.
class Store {
 public:
  struct Impl;
  // Serves it at any free port, or connects to the one at `host` (a numeric address, or this machine's
  // loopback name). `attempt` (LaunchInfo) keeps one start's keys from the next one's.
  static std::unique_ptr<Store> serve(const std::string& attempt, std::chrono::milliseconds timeout);
  static std::unique_ptr<Store> connect(const std::string& host, int port, const std::string& attempt,
                                        std::chrono::milliseconds timeout);
  explicit Store(std::unique_ptr<Impl> impl);
  ~Store();
  int port() const;
  void set(const std::string& key, const std::string& value);
  std::string get(const std::string& key);
  const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

struct TransportOptions {
  std::string name;  // unique in the store
  int rank = 0, size = 1;
  at::Device device = at::Device(at::kCPU);
  std::string address;  // of this machine, reachable by the others
  std::chrono::milliseconds connect_timeout, operation_timeout;
};

// Gloo or NCCL by the device. All ranks of the group construct it together. Peers are group ranks. Starting
// messages is thread-safe; collectives are one thread's.
class Transport {
 public:
  Transport(const Store& store, const TransportOptions& options);
  // Waits for what is under way; after abandon() leaves it, with its threads, to the end of the process.
  ~Transport();
  void abandon();

  Pending all_reduce(const at::Tensor& tensor, Reduce reduce);
  Pending all_gather(const at::Tensor& output, const at::Tensor& input);
  Pending reduce_scatter(const at::Tensor& output, const at::Tensor& input);
  Pending broadcast(const at::Tensor& tensor, int root);
  Pending barrier();
  Pending send(const at::Tensor& tensor, int to, int tag);
  Pending receive(const at::Tensor& tensor, int from, int tag);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ee::comm
