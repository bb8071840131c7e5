// What strict mode compares before an operation: each rank's idea of it, as text.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "operation.h"

namespace ee::comm {

inline constexpr int64_t kSignatureBytes = 1024;

// The `number`-th operation of its lane.
std::string signature(const Operation& operation, int number, const std::string& context);
at::Tensor signature_tensor(const std::string& signature);  // [kSignatureBytes] uint8
std::string signature_text(const at::Tensor& tensor);

// Empty if both may go on: the same collective, or a send and its receive, of the same tensor, tag and
// number. Otherwise what differs, both sides shown.
std::string compare_signatures(const std::string& mine, int my_rank, const std::string& theirs,
                               int their_rank);

}  // namespace ee::comm
