#include "tensor_checksums.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "ee/base/cores.h"
#include "ee/base/file.h"
#include "ee/base/hash.h"

namespace ee::checkpoint {

namespace {

constexpr size_t kPiece = size_t{4} << 20;  // in memory at a time, on each thread
constexpr int64_t kMostThreads = 8;         // one reads several GB/s; more would only wait for the disk

void begin(base::Hasher& hasher, const std::string& name, format::DType dtype,
           const std::vector<int64_t>& shape) {
  hasher.update(fmt::format("{}\n{}\n", name, format::to_string(dtype)));
  for (const int64_t size : shape) hasher.update(fmt::format("{},", size));
  hasher.update("\n");
}

std::string checksum_of(const NamedTensor& tensor) {
  const auto bytes = tensor.view->bytes;
  base::Hasher hasher;
  begin(hasher, tensor.name, tensor.view->dtype, tensor.view->shape);
  for (size_t first = 0; first < bytes.size(); first += kPiece) {
    const auto piece = bytes.subspan(first, std::min(kPiece, bytes.size() - first));
    hasher.update(piece);
    base::release_pages(piece);
  }
  base::release_pages(bytes);  // also the pages on which two pieces met
  return hasher.digest();
}

}  // namespace

std::vector<NamedTensor> named_tensors(const TensorFiles& files) {
  std::vector<NamedTensor> tensors;
  for (const auto& [name, file] : files.names()) tensors.push_back({name, &files.at(name)});
  return tensors;
}

TensorChecksums compute_checksums(std::span<const NamedTensor> tensors) {
  std::vector<NamedTensor> order(tensors.begin(), tensors.end());
  // The largest first, so that no thread begins it when the others are done.
  std::ranges::stable_sort(order, std::greater{},
                           [](const auto& tensor) { return tensor.view->bytes.size(); });
  std::vector<std::string> found(order.size());
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < order.size(); i = next++) found[i] = checksum_of(order[i]);
  };
  {
    std::vector<std::jthread> others;
    const auto wanted = std::min(base::cores_for_each(1), kMostThreads);
    while (others.size() + 1 < std::min(static_cast<size_t>(wanted), order.size())) others.emplace_back(work);
    work();
  }
  TensorChecksums checksums;
  for (size_t i = 0; i < order.size(); ++i) checksums[order[i].name] = found[i];
  return checksums;
}

TensorChecksums compute_checksums(const TensorFiles& files) {
  return compute_checksums(named_tensors(files));
}

format::TensorToWrite with_checksum(format::TensorToWrite tensor, TensorChecksums& checksums) {
  const auto hasher = std::make_shared<base::Hasher>();
  begin(*hasher, tensor.name, tensor.dtype, tensor.shape);
  tensor.produce = [produce = std::move(tensor.produce), name = tensor.name, hasher,
                    &checksums](const auto& sink) {
    produce([&](std::span<const std::byte> bytes) {
      hasher->update(bytes);
      sink(bytes);
    });
    checksums[name] = hasher->digest();
  };
  return tensor;
}

}  // namespace ee::checkpoint
