#include "operation.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "ee/base/text.h"

namespace ee::comm {

std::string describe(const Operation& operation) {
  std::string text = operation.name;
  if (!operation.tensor.empty()) text += " of " + operation.tensor;
  if (operation.is_message())
    text += fmt::format(" {} rank {} (tag {})", operation.name == "send" ? "to" : "from", operation.peer,
                        operation.tag);
  return text + " in group " + operation.group;
}

std::string describe_tensor(at::ScalarType dtype, const std::vector<int64_t>& shape) {
  const char* name = dtype == at::kFloat      ? "float32"
                     : dtype == at::kBFloat16 ? "bfloat16"
                     : dtype == at::kLong     ? "int64"
                     : dtype == at::kByte     ? "uint8"
                                              : c10::toString(dtype);
  return fmt::format("{} [{}]", name, fmt::join(shape, ", "));
}

void Activity::set_context(std::string context) {
  const std::lock_guard lock(mutex_);
  context_ = std::move(context);
}

std::string Activity::context() const {
  const std::lock_guard lock(mutex_);
  return context_.empty() ? "" : context_ + ": ";
}

std::string Activity::describe() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> parts;
  for (const auto& entry : waiting_)
    parts.push_back(fmt::format("{}, for {:.1f} s", comm::describe(*entry.operation),
                                std::chrono::duration<double>(Clock::now() - entry.since).count()));
  if (parts.empty()) parts.push_back(last_ ? "computing, after " + comm::describe(*last_) : "computing");
  return (context_.empty() ? "" : context_ + ": ") + base::join(parts, "; ");
}

Activity::Scope::Scope(Activity& activity, std::shared_ptr<const Operation> operation) : activity_(activity) {
  const std::lock_guard lock(activity_.mutex_);
  entry_ = activity_.waiting_.insert(activity_.waiting_.end(), {std::move(operation), Clock::now()});
}

Activity::Scope::~Scope() {
  const std::lock_guard lock(activity_.mutex_);
  activity_.last_ = entry_->operation;
  activity_.waiting_.erase(entry_);
}

}  // namespace ee::comm
