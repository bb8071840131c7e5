// Collectives and messages among some of the ranks: the same calls on Gloo (CPU tensors) and NCCL (CUDA
// tensors).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

namespace ee::comm {

enum class Reduce { kSum, kMax };

// An operation under way. wait() ends it; until then neither read its output nor write its input. Every Work
// is waited for, except when an error ends the run: a message whose Work is destroyed may never arrive.
// Movable.
class Work {
 public:
  struct State;
  Work() = default;  // already done
  explicit Work(std::shared_ptr<State> state) : state_(std::move(state)) {}

  // CPU: returns when the result is in the output and the buffers may be reused. CUDA: makes the current
  // stream wait for it and returns at once, so buffers may be used by later work on that stream. CommError. A
  // second call does nothing.
  void wait();

 private:
  std::shared_ptr<State> state_;
};

// A handle (copies mean the same group). All ranks of a group must make the same calls in the same order;
// sends and receives match by pair of ranks, in order, with equal tags. Tensors: contiguous, on the world's
// device, float32, bfloat16, int64 or uint8, same shape on all ranks of the group. Without _async, a call is
// `..._async(...).wait()`. A group of one rank does nothing but copy; empty tensors are not sent at all.
// Not thread-safe: one thread per rank issues operations. Destroy groups before their World.
// Every failure is a CommError.
class Group {
 public:
  struct State;
  explicit Group(std::shared_ptr<State> state) : state_(std::move(state)) {}

  const std::string& name() const;
  int rank() const;                       // in the group
  int size() const;                       // ranks in the group
  const std::vector<int>& ranks() const;  // their world ranks, in group order

  // In place. Every rank gets the same bits. On the CPU sums are made in the order of the ranks, bfloat16
  // ones in float32 and rounded once; large tensors among more than two ranks take a second trip, which
  // begins in wait().
  void all_reduce(const at::Tensor& tensor, Reduce reduce = Reduce::kSum) const;
  Work all_reduce_async(const at::Tensor& tensor, Reduce reduce = Reduce::kSum) const;

  // output [size * n, ...] <- input [n, ...] of every rank, in group order. The input may be this rank's n
  // rows of the output.
  void all_gather(const at::Tensor& output, const at::Tensor& input) const;
  Work all_gather_async(const at::Tensor& output, const at::Tensor& input) const;

  // output [n, ...] <- this rank's n rows of the sum over ranks of input [size * n, ...]; sums as
  // all_reduce's. The output may be just these rows of the input.
  void reduce_scatter(const at::Tensor& output, const at::Tensor& input) const;
  Work reduce_scatter_async(const at::Tensor& output, const at::Tensor& input) const;

  // In place, from group rank `root`.
  void broadcast(const at::Tensor& tensor, int root) const;
  Work broadcast_async(const at::Tensor& tensor, int root) const;

  // Returns after every rank of the group has called it.
  void barrier() const;

  // To and from a group rank, with a tag below 65536. send() may return before the receive is posted, or not:
  // rely on neither. NCCL runs the operations of one pair of ranks one after the other and knows no tags, so
  // two ranks that both send first, or that use tags out of order, hang there; strict mode makes that an
  // error.
  void send(const at::Tensor& tensor, int to, int tag = 0) const;
  Work send_async(const at::Tensor& tensor, int to, int tag = 0) const;
  void receive(const at::Tensor& tensor, int from, int tag = 0) const;
  Work receive_async(const at::Tensor& tensor, int from, int tag = 0) const;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace ee::comm
