#include "strict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "ee/base/text.h"

namespace ee::comm {

// Three lines: the name, the rest that must be equal on both sides, and words for people.
std::string signature(const Operation& operation, int number, const std::string& context) {
  const std::string tag = operation.is_message() ? fmt::format(" tag {}", operation.tag) : "";
  return fmt::format("{}\n#{} {}{}\n{}{}, number {}", operation.name, number, operation.tensor, tag, context,
                     describe(operation), number);
}

at::Tensor signature_tensor(const std::string& signature) {
  const at::Tensor tensor = at::zeros({kSignatureBytes}, at::kByte);
  std::memcpy(tensor.mutable_data_ptr(), signature.data(),
              std::min<std::size_t>(signature.size(), static_cast<std::size_t>(kSignatureBytes) - 1));
  return tensor;
}

std::string signature_text(const at::Tensor& tensor) {
  return static_cast<const char*>(tensor.const_data_ptr());
}

std::string compare_signatures(const std::string& mine, int my_rank, const std::string& theirs,
                               int their_rank) {
  const auto a = base::split(mine, '\n'), b = base::split(theirs, '\n');
  const auto part = [](const std::vector<std::string>& lines, std::size_t i) {
    return i < lines.size() ? lines[i] : "";
  };
  const std::string &name = part(a, 0), &other = part(b, 0);
  const bool messages = name == "send" || name == "receive";
  const bool match = messages ? other != name && (other == "send" || other == "receive") : other == name;
  if (match && part(a, 1) == part(b, 1)) return "";
  return fmt::format("{}:\n  rank {}: {}\n  rank {}: {}",
                     messages && name == other ? "both ranks of a pair do the same, which NCCL never ends"
                                               : "the ranks do not issue the same operation",
                     my_rank, part(a, 2), their_rank, part(b, 2));
}

}  // namespace ee::comm
