// Which part of a tensor a tensor-parallel rank owns: pure arithmetic. Matrices are divided as in Megatron-LM
// (Shoeybi et al. 2019, section 3): attention by heads, the MLP by its inner width, embedding and head by the
// vocabulary. Parts need not be equal: SmolLM2's 9 heads in 3 groups are 3 + 6 on two ranks, and no
// vocabulary is padded.
#pragma once

#include <cstdint>
#include <vector>

#include "ee/config/model_config.h"

namespace ee::parallel {

enum class Split {
  none,          // every rank has the whole tensor
  rows,          // dimension 0, parts that differ by one at most
  columns,       // dimension 1, likewise
  head_rows,     // dimension 0 by query heads; those that share a key/value head stay together if they can
  head_columns,  // dimension 1, likewise
  kv_heads,      // dimension 0 by key/value heads; with more ranks than heads, neighbours share one
  vocabulary,    // dimension 0; parts of ceil(vocabulary / ranks), the last ones may be shorter or empty
};

// Elements begin .. begin + length of dimension `axis`.
struct Slice {
  int64_t axis = 0, begin = 0, length = 0;
  bool operator==(const Slice&) const = default;
};

// What rank `rank` of `ranks` owns of a tensor of these sizes. The sizes must fit (check_tensor_split).
Slice slice_of(const config::ModelConfig& config, Split split, const std::vector<int64_t>& sizes,
               int64_t rank, int64_t ranks);

// How many ranks hold the same elements.
int64_t copies_of(const config::ModelConfig& config, Split split, int64_t ranks);

// Key/value heads on rank `rank` of `ranks`.
int64_t local_kv_heads(const config::ModelConfig& config, int64_t rank, int64_t ranks);

// UserError when there are more ranks than key/value heads but not a multiple of them that divides the heads,
// more than units in the MLP, or, with sequence parallelism, not a divisor of `sequence_length` (0: not
// used).
void check_tensor_split(const config::ModelConfig& config, int64_t ranks, int64_t sequence_length);

}  // namespace ee::parallel
