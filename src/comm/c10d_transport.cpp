// The only file that sees c10d (the CUDA plug-in aside).
#include <ATen/ops/sum.h>

#include <atomic>
#include <cstdlib>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "device_plugin.h"
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

c10d::ReduceOp to_c10d(Reduce reduce) {
  return reduce == Reduce::kSum ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
}

}  // namespace

// Store ------------------------------------------------------------

struct Store::Impl {
  c10::intrusive_ptr<c10d::Store> store;
};

Store::Store(const LaunchInfo& launch, milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(launch.master_port);
  options.isServer = launch.rank == 0 && !launch.agent_store;
  options.waitWorkers = false;  // the watch waits, and names those that do not come
  options.timeout = timeout;
  auto store = translate([&] { return c10::make_intrusive<c10d::TCPStore>(launch.master_addr, options); });
  impl_ = std::make_unique<Impl>(
      Impl{c10::make_intrusive<c10d::PrefixStore>("ee-tune/" + launch.attempt, std::move(store))});
}

Store::~Store() = default;

void Store::set(const std::string& key, const std::string& value) {
  translate([&] { impl_->store->set(key, value); });
}

std::string Store::get(const std::string& key) {
  return translate([&] { return impl_->store->get_to_str(key); });
}

// Pending ------------------------------------------------------------

// How the backend's work is waited for.
enum class Waiting {
  kStream,    // NCCL: enqueues a wait on the current stream
  kPolled,    // Gloo's collectives: a wait that timed out can be repeated
  kAbortable  // Gloo's messages: a wait that timed out breaks the connection, but another thread can abort it
};

struct Pending::Impl {
  c10::intrusive_ptr<c10d::Work> work;
  Waiting waiting;
  std::function<void()> finish = {};  // after the work is done
  std::atomic<bool> interrupted = false;

  Result wait_polled(milliseconds limit) {
    constexpr milliseconds kSlice{50};  // how late an interruption may come
    for (const auto deadline = Clock::now() + limit; !interrupted;) {
      try {
        work->wait(kSlice);
        return Result::kDone;
      } catch (const std::exception&) {
        if (work->isCompleted()) throw;
        if (Clock::now() >= deadline) return Result::kTimedOut;
      }
    }
    return Result::kInterrupted;
  }

  Result wait_abortable(milliseconds limit) {
    const auto deadline = Clock::now() + limit;
    try {
      return work->wait(limit) ? Result::kDone : Result::kInterrupted;
    } catch (const std::exception&) {
      if (interrupted) return Result::kInterrupted;
      if (Clock::now() >= deadline) return Result::kTimedOut;
      throw;
    }
  }
};

Pending::Pending(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Pending::Pending(Pending&&) noexcept = default;
Pending& Pending::operator=(Pending&&) noexcept = default;
Pending::~Pending() = default;

Pending::Result Pending::wait(milliseconds limit) {
  return translate([&] {
    Result result = Result::kDone;
    switch (impl_->waiting) {
      case Waiting::kStream:
        impl_->work->wait();
        break;
      case Waiting::kPolled:
        result = impl_->wait_polled(limit);
        break;
      case Waiting::kAbortable:
        result = impl_->wait_abortable(limit);
        break;
    }
    if (result == Result::kDone && impl_->finish) impl_->finish();
    return result;
  });
}

void Pending::interrupt() {
  if (impl_->interrupted.exchange(true)) return;
  if (impl_->waiting == Waiting::kAbortable) impl_->work->abort();
}

// Transport ------------------------------------------------------------

struct Transport::Impl {
  c10::intrusive_ptr<c10d::Backend> backend;
  const int size;
  const at::Device device;
  const bool gloo = device.is_cpu();

  Pending collective(c10::intrusive_ptr<c10d::Work> work, std::function<void()> finish = {}) const {
    return Pending(std::make_unique<Pending::Impl>(
        std::move(work), gloo ? Waiting::kPolled : Waiting::kStream, std::move(finish)));
  }
  Pending message(c10::intrusive_ptr<c10d::Work> work) const {
    return Pending(
        std::make_unique<Pending::Impl>(std::move(work), gloo ? Waiting::kAbortable : Waiting::kStream));
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
    : impl_(new Impl{.backend = {}, .size = options.size, .device = options.device}) {
  translate([&] {
    const auto prefixed = c10::make_intrusive<c10d::PrefixStore>("group/" + options.name, store.impl().store);
    impl_->backend = impl_->gloo ? make_gloo(prefixed, options) : make_nccl(prefixed, options);
  });
}

Transport::~Transport() = default;

void Transport::abandon() {
  // Its destructor would wait for operations that will never end.
  [[maybe_unused]] const auto* leaked = impl_->backend.release();
}

Pending Transport::all_reduce(const at::Tensor& tensor, Reduce reduce) {
  return translate([&] {
    std::vector<at::Tensor> tensors = {tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = to_c10d(reduce);
    return impl_->collective(impl_->backend->allreduce(tensors, options));
  });
}

Pending Transport::all_gather(const at::Tensor& output, const at::Tensor& input) {
  return translate([&] {
    at::Tensor to = output, from = input;
    return impl_->collective(impl_->backend->_allgather_base(to, from));
  });
}

Pending Transport::reduce_scatter(const at::Tensor& output, const at::Tensor& input) {
  return translate([&] {
    at::Tensor to = output, from = input;
    if (!impl_->gloo) return impl_->collective(impl_->backend->_reduce_scatter_base(to, from));
    // c10d's own on Gloo is a whole all-reduce. Every rank sends each other rank its part and adds up what it
    // got.
    at::Tensor parts = at::empty_like(from);  // [size * n, ...]: this rank's n rows, of each rank
    std::vector<int64_t> equal;
    auto work = impl_->backend->alltoall_base(parts, from, equal, equal);
    return impl_->collective(std::move(work), [parts, to, size = impl_->size]() mutable {
      const auto type = to.scalar_type() == at::kBFloat16 ? at::kFloat : to.scalar_type();
      const c10::NoGradGuard no_grad;
      to.copy_(at::sum(parts.view({size, -1}), 0, /*keepdim=*/false, type).view(to.sizes()));
    });
  });
}

Pending Transport::broadcast(const at::Tensor& tensor, int root) {
  return translate([&] {
    std::vector<at::Tensor> tensors = {tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return impl_->collective(impl_->backend->broadcast(tensors, options));
  });
}

Pending Transport::barrier() {
  return translate([&] {
    c10d::BarrierOptions options;
    if (!impl_->gloo) options.device = impl_->device;
    return impl_->collective(impl_->backend->barrier(options));
  });
}

Pending Transport::send(const at::Tensor& tensor, int to, int tag) {
  return translate([&] {
    std::vector<at::Tensor> tensors = {tensor};
    return impl_->message(impl_->backend->send(tensors, to, tag));
  });
}

Pending Transport::receive(const at::Tensor& tensor, int from, int tag) {
  return translate([&] {
    std::vector<at::Tensor> tensors = {tensor};
    return impl_->message(impl_->backend->recv(tensors, from, tag));
  });
}

}  // namespace ee::comm
