// Hidden states from one pipeline stage to the next, the few numbers that go ahead of them, and numbers from
// later stages back to the first; gradients go the other way.
#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <vector>

#include "ee/parallel/ranks.h"

namespace ee::parallel {

// One rank's line through the pipeline. Messages of a pair of stages arrive in the order they were sent in.
class StageLink {
 public:
  // `in_flight`: sends that may be under way; one more waits for the oldest.
  StageLink(const Ranks& ranks, int64_t in_flight) : ranks_(ranks), in_flight_(in_flight) {}

  // From the stage before; returns when it is there.
  at::Tensor receive(at::IntArrayRef sizes, const at::TensorOptions& options) const;
  std::vector<double> receive_numbers(size_t count) const;

  // From the next stage; the way back of gradients.
  at::Tensor receive_back(at::IntArrayRef sizes, const at::TensorOptions& options) const;

  // To the next stage. Returns at once while fewer than `in_flight` tensors are under way.
  void send(const at::Tensor& tensor);
  void send_numbers(const std::vector<double>& numbers);  // do not count
  void send_back(const at::Tensor& tensor);               // the same to the stage before
  // Returns when everything that was sent to the neighbours has been taken.
  void finish();

  // From a later stage straight to the first one, past those between. Both return when done: the first stage
  // must receive what the others send it, and in the same order.
  void send_numbers_to_first(const std::vector<double>& numbers) const;
  std::vector<double> receive_numbers_from(int64_t stage, size_t count) const;

 private:
  struct Sent {
    at::Tensor tensor;  // kept until it has been taken
    bool counts;
    comm::Work work = {};
  };

  at::Tensor receive_from(int stage, at::IntArrayRef sizes, const at::TensorOptions& options) const;
  void post(const at::Tensor& tensor, int stage, bool counts);
  void wait_for_oldest();

  const Ranks& ranks_;
  int64_t in_flight_;
  int64_t under_way_ = 0;
  std::deque<Sent> sent_;
};

// numbers[i] of every rank of `group` -> result[rank][i]. Doubles travel as bytes: sums of them do not depend
// on what a device can add.
std::vector<std::vector<double>> gather_numbers(const comm::Group& group, const std::vector<double>& numbers,
                                                at::Device device);
// Their sums, the same bits on all ranks.
std::vector<double> sum_numbers(const comm::Group& group, const std::vector<double>& numbers,
                                at::Device device);

}  // namespace ee::parallel
