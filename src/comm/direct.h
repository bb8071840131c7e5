// Collectives made of messages between each pair of ranks. On few CPU ranks they are several times faster
// than Gloo's own, whose rings hand each step from thread to thread (16 floats among 2 ranks: 0.1 against 1
// to 2 ms); every wait can be interrupted; and sums are made in float32, in the order of the ranks, so that
// all ranks get the same bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "ee/comm/group.h"
#include "pending.h"

namespace ee::comm {

// All ranks make the same calls in the same order; tensors are contiguous. Any number may be under way.
class DirectCollectives {
 public:
  static constexpr int kFirstTag = 1 << 16;  // tags from here on are theirs
  // Starts a message between this rank and `peer`.
  using Start = std::function<Transfer(const at::Tensor& tensor, int peer, int tag)>;

  DirectCollectives(int rank, int size, Start send, Start receive)
      : rank_(rank), size_(size), send_(std::move(send)), receive_(std::move(receive)) {}

  Pending all_reduce(const at::Tensor& tensor, Reduce reduce);
  Pending all_gather(const at::Tensor& output, const at::Tensor& input);
  Pending reduce_scatter(const at::Tensor& output, const at::Tensor& input);
  Pending broadcast(const at::Tensor& tensor, int root);
  Pending barrier();

 private:
  using Part = std::function<at::Tensor(int rank)>;  // of a tensor; empty parts are not sent
  // A message with every other rank: to[r] goes to rank r, from[r] is what rank r sent.
  Pending::Transfers exchange(const Part& to, const Part& from, int tag);
  Pending reduce_whole(const at::Tensor& tensor, Reduce reduce);
  Pending reduce_by_parts(const at::Tensor& tensor, Reduce reduce);
  int next_tag();

  const int rank_, size_;
  const Start send_, receive_;
  int operations_ = 0;
};

}  // namespace ee::comm
