#include "tied_head.h"

#include <algorithm>
#include <cstring>

#include "ee/base/file.h"
#include "folder_parts.h"

namespace ee::checkpoint {

namespace {

constexpr size_t kPiece = 64 << 20;  // bytes of each that are in memory at a time

bool equal_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  if (a.size() != b.size()) return false;
  bool equal = true;
  for (size_t begin = 0; equal && begin < a.size(); begin += kPiece) {
    const size_t size = std::min(kPiece, a.size() - begin);
    const auto left = a.subspan(begin, size), right = b.subspan(begin, size);
    equal = std::memcmp(left.data(), right.data(), size) == 0;
    base::release_pages(left);
    base::release_pages(right);
  }
  return equal;
}

}  // namespace

void settle_tied_head(config::ModelConfig& config, TensorFiles& files) {
  if (!config.tie_embeddings || !files.contains(kHead)) return;
  if (!files.contains(kEmbedding)) {
    files.add_name(kEmbedding, kHead);
    return;
  }
  const format::TensorView &head = files.at(kHead), &embedding = files.at(kEmbedding);
  config.tie_embeddings = head.dtype == embedding.dtype && head.shape == embedding.shape &&
                          equal_bytes(head.bytes, embedding.bytes);
}

}  // namespace ee::checkpoint
