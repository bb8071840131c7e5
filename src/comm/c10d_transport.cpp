// The only file that sees c10d (the CUDA plug-in aside).
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "device_plugin.h"
#include "direct.h"
#include "ee/base/error.h"
#include "nccl_plugin.h"
#include "transport.h"

namespace ee::comm {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// c10d's exceptions carry a backtrace in what(), which tells a user nothing.
template <typename Body>
auto translate(const Body& body) {
  try {
    return body();
  } catch (const c10::Error& error) {
    throw BackendError(error.what_without_backtrace());
  } catch (const std::exception& error) {
    throw BackendError(error.what());
  }
}

}  // namespace

// Store ------------------------------------------------------------

struct Store::Impl {
  c10::intrusive_ptr<c10d::Store> store;
  int port;

  Impl(const std::string& host, c10d::TCPStoreOptions options, const std::string& attempt,
       milliseconds timeout) {
    options.waitWorkers = false;  // the meeting waits, and names those that do not come
    options.timeout = timeout;
    auto tcp = translate([&] { return c10::make_intrusive<c10d::TCPStore>(host, options); });
    port = tcp->getPort();
    store = c10::make_intrusive<c10d::PrefixStore>("ee-tune/" + attempt, std::move(tcp));
  }
};

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

std::unique_ptr<Store> Store::serve(const std::string& attempt, milliseconds timeout) {
  return std::make_unique<Store>(std::make_unique<Impl>(
      "127.0.0.1", c10d::TCPStoreOptions{.port = 0, .isServer = true}, attempt, timeout));
}

std::unique_ptr<Store> Store::connect(const std::string& host, int port, const std::string& attempt,
                                      milliseconds timeout) {
  return std::make_unique<Store>(std::make_unique<Impl>(
      host, c10d::TCPStoreOptions{.port = static_cast<uint16_t>(port)}, attempt, timeout));
}

int Store::port() const { return impl_->port; }

Store::~Store() = default;

void Store::set(const std::string& key, const std::string& value) {
  translate([&] { impl_->store->set(key, value); });
}

std::string Store::get(const std::string& key) {
  return translate([&] { return impl_->store->get_to_str(key); });
}

// Transfer ------------------------------------------------------------

struct Transfer::Impl {
  c10::intrusive_ptr<c10d::Work> work;
  const bool on_stream;  // NCCL: a wait only makes the current stream wait
  std::atomic<bool> interrupted = false;

  Result wait(milliseconds limit) {
    const auto deadline = Clock::now() + limit;
    try {
      return work->wait(on_stream ? kNoTimeout : limit) ? Result::kDone : Result::kInterrupted;
    } catch (const std::exception&) {
      if (interrupted) return Result::kInterrupted;
      if (Clock::now() >= deadline && !on_stream) return Result::kTimedOut;
      throw;
    }
  }
};

Transfer::Transfer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Transfer::Transfer(Transfer&&) noexcept = default;
Transfer& Transfer::operator=(Transfer&&) noexcept = default;
Transfer::~Transfer() = default;

Result Transfer::wait(milliseconds limit) {
  return translate([&] { return impl_->wait(limit); });
}

void Transfer::interrupt() {
  if (!impl_->interrupted.exchange(true) && !impl_->on_stream) impl_->work->abort();
}

// Transport ------------------------------------------------------------

struct Transport::Impl {
  c10::intrusive_ptr<c10d::Backend> backend;
  const int size;
  const at::Device device;
  std::optional<DirectCollectives> direct;  // Gloo only
  std::mutex issue_mutex;                   // c10d's groups are not thread-safe

  // One call into c10d; `start` returns its work.
  template <typename Start>
  Transfer issue(const Start& start) {
    return translate([&] {
      const std::lock_guard lock(issue_mutex);
      return Transfer(std::make_unique<Transfer::Impl>(start(), !device.is_cpu()));
    });
  }

  template <typename Start>
  Pending issue_pending(const Start& start) {
    Pending::Transfers transfers;
    transfers.push_back(issue(start));
    return Pending(std::move(transfers));
  }

  Transfer send(const at::Tensor& tensor, int to, int tag) {
    std::vector<at::Tensor> tensors = {tensor};
    return issue([&] { return backend->send(tensors, to, tag); });
  }

  Transfer receive(const at::Tensor& tensor, int from, int tag) {
    std::vector<at::Tensor> tensors = {tensor};
    return issue([&] { return backend->recv(tensors, from, tag); });
  }
};

namespace {

c10::intrusive_ptr<c10d::Backend> make_gloo(const c10::intrusive_ptr<c10d::Store>& store,
                                            const TransportOptions& options) {
  auto gloo = c10d::ProcessGroupGloo::Options::create(options.connect_timeout);
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  gloo->devices.push_back(interface ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                                    : c10d::ProcessGroupGloo::createDeviceForHostname(options.address));
  auto group = c10::make_intrusive<c10d::ProcessGroupGloo>(store, options.rank, options.size, gloo);
  group->setTimeout(options.operation_timeout);
  return group;
}

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                            const TransportOptions& options) {
  const auto make = from_cuda_plugin<decltype(ee_make_nccl)>("ee_make_nccl");
  return c10::intrusive_ptr<c10d::Backend>::reclaim(make(
      store.get(), options.rank, options.size, options.device.index(), options.operation_timeout.count()));
}

}  // namespace

Transport::Transport(const Store& store, const TransportOptions& options)
    : impl_(new Impl{
          .backend = {}, .size = options.size, .device = options.device, .direct = {}, .issue_mutex = {}}) {
  translate([&] {
    const auto prefixed = c10::make_intrusive<c10d::PrefixStore>("group/" + options.name, store.impl().store);
    impl_->backend = options.device.is_cpu() ? make_gloo(prefixed, options) : make_nccl(prefixed, options);
  });
  if (options.device.is_cpu())
    impl_->direct.emplace(
        options.rank, options.size,
        [impl = impl_.get()](const at::Tensor& tensor, int to, int tag) {
          return impl->send(tensor, to, tag);
        },
        [impl = impl_.get()](const at::Tensor& tensor, int from, int tag) {
          return impl->receive(tensor, from, tag);
        });
}

Transport::~Transport() = default;

void Transport::abandon() {
  // Its destructor would wait for operations that will never end.
  [[maybe_unused]] const auto* leaked = impl_->backend.release();
}

Pending Transport::all_reduce(const at::Tensor& tensor, Reduce reduce) {
  if (impl_->direct) return impl_->direct->all_reduce(tensor, reduce);
  std::vector<at::Tensor> tensors = {tensor};
  c10d::AllreduceOptions options;
  options.reduceOp = reduce == Reduce::kSum ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
  return impl_->issue_pending([&] { return impl_->backend->allreduce(tensors, options); });
}

Pending Transport::all_gather(const at::Tensor& output, const at::Tensor& input) {
  if (impl_->direct) return impl_->direct->all_gather(output, input);
  at::Tensor to = output, from = input;
  return impl_->issue_pending([&] { return impl_->backend->_allgather_base(to, from); });
}

Pending Transport::reduce_scatter(const at::Tensor& output, const at::Tensor& input) {
  if (impl_->direct) return impl_->direct->reduce_scatter(output, input);
  at::Tensor to = output, from = input;
  return impl_->issue_pending([&] { return impl_->backend->_reduce_scatter_base(to, from); });
}

Pending Transport::broadcast(const at::Tensor& tensor, int root) {
  if (impl_->direct) return impl_->direct->broadcast(tensor, root);
  std::vector<at::Tensor> tensors = {tensor};
  c10d::BroadcastOptions options;
  options.rootRank = root;
  return impl_->issue_pending([&] { return impl_->backend->broadcast(tensors, options); });
}

Pending Transport::barrier() {
  if (impl_->direct) return impl_->direct->barrier();
  c10d::BarrierOptions options;
  options.device = impl_->device;
  return impl_->issue_pending([&] { return impl_->backend->barrier(options); });
}

Pending Transport::send(const at::Tensor& tensor, int to, int tag) {
  Pending::Transfers transfers;
  transfers.push_back(impl_->send(tensor, to, tag));
  return Pending(std::move(transfers));
}

Pending Transport::receive(const at::Tensor& tensor, int from, int tag) {
  Pending::Transfers transfers;
  transfers.push_back(impl_->receive(tensor, from, tag));
  return Pending(std::move(transfers));
}

}  // namespace ee::comm
