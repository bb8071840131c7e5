#include "ee/parallel/stage_link.h"

#include <ATen/ops/empty.h>

#include <cstring>

namespace ee::parallel {

namespace {

at::Tensor to_bytes(const std::vector<double>& numbers, at::Device device) {
  at::Tensor bytes = at::empty({static_cast<int64_t>(numbers.size() * sizeof(double))}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), numbers.data(), bytes.nbytes());
  return bytes.to(device);
}

std::vector<double> from_bytes(const at::Tensor& tensor) {
  const at::Tensor bytes = tensor.to(at::kCPU).contiguous();
  std::vector<double> numbers(bytes.nbytes() / sizeof(double));
  std::memcpy(numbers.data(), bytes.const_data_ptr(), bytes.nbytes());
  return numbers;
}

}  // namespace

at::Tensor StageLink::receive_from(int stage, at::IntArrayRef sizes, const at::TensorOptions& options) const {
  const at::Tensor tensor = at::empty(sizes, options);
  ranks_.pipeline.receive(tensor, stage);
  return tensor;
}

at::Tensor StageLink::receive(at::IntArrayRef sizes, const at::TensorOptions& options) const {
  return receive_from(ranks_.pipeline.rank() - 1, sizes, options);
}

at::Tensor StageLink::receive_back(at::IntArrayRef sizes, const at::TensorOptions& options) const {
  return receive_from(ranks_.pipeline.rank() + 1, sizes, options);
}

std::vector<double> StageLink::receive_numbers(size_t count) const {
  return receive_numbers_from(ranks_.pipeline.rank() - 1, count);
}

std::vector<double> StageLink::receive_numbers_from(int64_t stage, size_t count) const {
  const auto bytes = static_cast<int64_t>(count * sizeof(double));
  return from_bytes(
      receive_from(static_cast<int>(stage), {bytes}, at::TensorOptions(at::kByte).device(ranks_.device)));
}

void StageLink::send(const at::Tensor& tensor) {
  while (under_way_ >= in_flight_) wait_for_oldest();
  post(tensor.contiguous(), ranks_.pipeline.rank() + 1, /*counts=*/true);
}

void StageLink::send_back(const at::Tensor& tensor) {
  while (under_way_ >= in_flight_) wait_for_oldest();
  post(tensor.contiguous(), ranks_.pipeline.rank() - 1, /*counts=*/true);
}

void StageLink::send_numbers(const std::vector<double>& numbers) {
  post(to_bytes(numbers, ranks_.device), ranks_.pipeline.rank() + 1, /*counts=*/false);
}

void StageLink::send_numbers_to_first(const std::vector<double>& numbers) const {
  ranks_.pipeline.send(to_bytes(numbers, ranks_.device), 0);
}

void StageLink::finish() {
  while (!sent_.empty()) wait_for_oldest();
}

void StageLink::post(const at::Tensor& tensor, int stage, bool counts) {
  sent_.push_back({.tensor = tensor, .counts = counts});
  sent_.back().work = ranks_.pipeline.send_async(tensor, stage);
  under_way_ += counts;
}

void StageLink::wait_for_oldest() {
  sent_.front().work.wait();
  under_way_ -= sent_.front().counts;
  sent_.pop_front();
}

std::vector<std::vector<double>> gather_numbers(const comm::Group& group, const std::vector<double>& numbers,
                                                at::Device device) {
  if (group.size() == 1) return {numbers};
  const at::Tensor own = to_bytes(numbers, device);
  const at::Tensor all = at::empty({group.size() * own.size(0)}, own.options());
  group.all_gather(all, own);
  std::vector<std::vector<double>> result;
  for (const at::Tensor& part : all.view({group.size(), -1}).unbind(0)) result.push_back(from_bytes(part));
  return result;
}

std::vector<double> sum_numbers(const comm::Group& group, const std::vector<double>& numbers,
                                at::Device device) {
  if (group.size() == 1) return numbers;
  std::vector<double> sum(numbers.size(), 0.0);
  for (const auto& part : gather_numbers(group, numbers, device))
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
  return sum;
}

}  // namespace ee::parallel
