#include "direct.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/maximum.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

namespace ee::comm {

namespace {

// Above this, among more than two ranks, each rank reduces a part: fewer bytes for one more trip.
constexpr int64_t kWholeBytes = 64 * 1024;

void accumulate(at::Tensor& total, const at::Tensor& more, Reduce reduce) {
  if (reduce == Reduce::kSum)
    total.add_(more);
  else
    at::maximum_out(total, total, more);
}

// result <- all ranks' inputs [n] reduced in the order of the ranks. The result may be one of the inputs.
void reduce_into(const at::Tensor& result, const std::vector<at::Tensor>& inputs, Reduce reduce) {
  const c10::InferenceMode no_autograd;  // which may be on another thread than the tensors were made on
  if (inputs.size() == 2) {              // one addition is rounded once in any dtype, and commutes
    const bool second = result.is_same(inputs[1]);
    at::Tensor total = result;
    if (!second && !result.is_same(inputs[0])) total.copy_(inputs[0]);
    accumulate(total, inputs[second ? 0 : 1], reduce);
    return;
  }
  const bool widen = reduce == Reduce::kSum && result.scalar_type() == at::kBFloat16;
  at::Tensor total =
      inputs[0].to(widen ? at::kFloat : result.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  for (std::size_t i = 1; i < inputs.size(); ++i) accumulate(total, inputs[i], reduce);
  result.copy_(total);
}

}  // namespace

int DirectCollectives::next_tag() {
  // Two tags each, for two trips; a tag returns only after more operations than can be under way.
  operations_ = (operations_ + 1) % (1 << 24);
  return kFirstTag + 2 * operations_;
}

Pending::Transfers DirectCollectives::exchange(const Part& to, const Part& from, int tag) {
  Pending::Transfers transfers;
  // Receives first, so that what arrives finds its place; each rank begins with its right neighbour.
  for (int step = 1; step < size_; ++step) {
    const int peer = (rank_ - step + size_) % size_;
    if (const at::Tensor part = from(peer); part.numel() > 0) transfers.push_back(receive_(part, peer, tag));
  }
  for (int step = 1; step < size_; ++step) {
    const int peer = (rank_ + step) % size_;
    if (const at::Tensor part = to(peer); part.numel() > 0) transfers.push_back(send_(part, peer, tag));
  }
  return transfers;
}

Pending DirectCollectives::all_reduce(const at::Tensor& tensor, Reduce reduce) {
  const bool whole = size_ == 2 || tensor.numel() * tensor.element_size() <= kWholeBytes;
  return whole ? reduce_whole(tensor, reduce) : reduce_by_parts(tensor, reduce);
}

Pending DirectCollectives::reduce_whole(const at::Tensor& tensor, Reduce reduce) {
  std::vector<at::Tensor> inputs;
  for (int rank = 0; rank < size_; ++rank) inputs.push_back(rank == rank_ ? tensor : at::empty_like(tensor));
  auto transfers = exchange([&](int) { return tensor; },
                            [&](int rank) { return inputs[static_cast<std::size_t>(rank)]; }, next_tag());
  return Pending(std::move(transfers), [=] {
    reduce_into(tensor, inputs, reduce);
    return Pending::Transfers{};
  });
}

Pending DirectCollectives::reduce_by_parts(const at::Tensor& tensor, Reduce reduce) {
  const at::Tensor flat = tensor.view({-1});
  const int64_t length = (flat.numel() + size_ - 1) / size_;
  const auto part = [=](int rank) {
    const int64_t begin = std::min(rank * length, flat.numel());
    return flat.slice(0, begin, std::min(begin + length, flat.numel()));
  };
  const at::Tensor mine = part(rank_);
  std::vector<at::Tensor> inputs;
  for (int rank = 0; rank < size_; ++rank) inputs.push_back(rank == rank_ ? mine : at::empty_like(mine));
  const int tag = next_tag();
  auto transfers = exchange(
      part, [&](int rank) { return inputs[static_cast<std::size_t>(rank)]; }, tag);
  return Pending(std::move(transfers), [=, this] {
    reduce_into(mine, inputs, reduce);
    return exchange([&](int) { return mine; }, part, tag + 1);
  });
}

Pending DirectCollectives::all_gather(const at::Tensor& output, const at::Tensor& input) {
  const c10::InferenceMode no_autograd;
  const int64_t rows = input.size(0);
  const auto part = [&](int rank) { return output.slice(0, rank * rows, (rank + 1) * rows); };
  part(rank_).copy_(input);
  return Pending(exchange([&](int) { return input; }, part, next_tag()));
}

Pending DirectCollectives::reduce_scatter(const at::Tensor& output, const at::Tensor& input) {
  const int64_t rows = output.size(0);
  const auto part = [&](int rank) { return input.slice(0, rank * rows, (rank + 1) * rows); };
  const at::Tensor own = part(rank_);
  const at::Tensor mine = output.data_ptr() == own.data_ptr() ? output : own;  // reduce_into() must know
  std::vector<at::Tensor> inputs;
  for (int rank = 0; rank < size_; ++rank) inputs.push_back(rank == rank_ ? mine : at::empty_like(output));
  auto transfers = exchange(
      part, [&](int rank) { return inputs[static_cast<std::size_t>(rank)]; }, next_tag());
  return Pending(std::move(transfers), [=] {
    reduce_into(output, inputs, Reduce::kSum);
    return Pending::Transfers{};
  });
}

Pending DirectCollectives::broadcast(const at::Tensor& tensor, int root) {
  const at::Tensor none = tensor.view({-1}).slice(0, 0, 0);
  return Pending(exchange([&](int) { return rank_ == root ? tensor : none; },
                          [&](int rank) { return rank == root ? tensor : none; }, next_tag()));
}

Pending DirectCollectives::barrier() {
  const at::Tensor token = at::zeros({size_}, at::kByte);
  return Pending(exchange([&](int) { return token.slice(0, rank_, rank_ + 1); },
                          [&](int rank) { return token.slice(0, rank, rank + 1); }, next_tag()));
}

}  // namespace ee::comm
