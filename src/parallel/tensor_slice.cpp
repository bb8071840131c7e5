#include "ee/parallel/tensor_slice.h"

#include <algorithm>
#include <string>

#include "ee/base/error.h"
#include "ee/base/text.h"

namespace ee::parallel {

namespace {

struct Part {
  int64_t begin, length;
};

Part even_part(int64_t size, int64_t rank, int64_t ranks) {
  const int64_t begin = size * rank / ranks;
  return {begin, size * (rank + 1) / ranks - begin};
}

Part kv_part(const config::ModelConfig& config, int64_t rank, int64_t ranks) {
  if (ranks <= config.kv_heads) return even_part(config.kv_heads, rank, ranks);
  return {rank * config.kv_heads / ranks, 1};  // rounds down: neighbours share a head
}

Part head_part(const config::ModelConfig& config, int64_t rank, int64_t ranks) {
  if (ranks > config.kv_heads) return even_part(config.heads, rank, ranks);
  const int64_t group = config.heads / config.kv_heads;
  const Part kv = kv_part(config, rank, ranks);
  return {kv.begin * group, kv.length * group};
}

Part vocabulary_rows(int64_t vocabulary, int64_t rank, int64_t ranks) {
  const int64_t part = (vocabulary + ranks - 1) / ranks;
  const int64_t begin = std::min(rank * part, vocabulary);
  return {begin, std::min(part, vocabulary - begin)};
}

}  // namespace

Slice slice_of(const config::ModelConfig& config, Split split, const std::vector<int64_t>& sizes,
               int64_t rank, int64_t ranks) {
  const auto along = [](int64_t axis, Part part, int64_t unit) {
    return Slice{.axis = axis, .begin = part.begin * unit, .length = part.length * unit};
  };
  switch (split) {
    case Split::none:
      return along(0, {0, sizes.at(0)}, 1);
    case Split::rows:
      return along(0, even_part(sizes.at(0), rank, ranks), 1);
    case Split::columns:
      return along(1, even_part(sizes.at(1), rank, ranks), 1);
    case Split::head_rows:
      return along(0, head_part(config, rank, ranks), config.head_dim);
    case Split::head_columns:
      return along(1, head_part(config, rank, ranks), config.head_dim);
    case Split::kv_heads:
      return along(0, kv_part(config, rank, ranks), config.head_dim);
    case Split::vocabulary:
      return along(0, vocabulary_rows(sizes.at(0), rank, ranks), 1);
  }
  EE_CHECK(false, "split {}", static_cast<int>(split));
}

int64_t copies_of(const config::ModelConfig& config, Split split, int64_t ranks) {
  if (split == Split::none) return ranks;
  return split == Split::kv_heads ? std::max<int64_t>(1, ranks / config.kv_heads) : 1;
}

int64_t local_kv_heads(const config::ModelConfig& config, int64_t rank, int64_t ranks) {
  return kv_part(config, rank, ranks).length;
}

void check_tensor_split(const config::ModelConfig& config, int64_t ranks, int64_t sequence_length) {
  std::vector<std::string> problems;
  if (ranks > config.kv_heads && (ranks % config.kv_heads != 0 || config.heads % ranks != 0))
    problems.push_back(fmt::format("{} attention heads in {} groups", config.heads, config.kv_heads));
  if (ranks > config.intermediate_size)
    problems.push_back(fmt::format("intermediate_size {}", config.intermediate_size));
  if (sequence_length % ranks != 0)
    problems.push_back(fmt::format("batch.sequence_length {} (parallel.sequence)", sequence_length));
  if (!problems.empty())
    throw base::UserError("tensor size {} does not divide {}; choose another number of tensor ranks", ranks,
                          base::join(problems, ", "));
}

}  // namespace ee::parallel
