#include "llama_metadata.h"

#include <cmath>

#include "ee/base/error.h"

namespace ee::checkpoint {

namespace {

std::string full(const std::string& key) { return "llama." + key; }

}  // namespace

int64_t LlamaMetadata::size(const std::string& key, int64_t largest) const {
  return in_range(key, file_.get<int64_t>(full(key)), largest);
}

int64_t LlamaMetadata::size_or(const std::string& key, int64_t absent, int64_t largest) const {
  const auto* value = file_.find<int64_t>(full(key));
  return value ? in_range(key, *value, largest) : absent;
}

int64_t LlamaMetadata::size_of_all(const std::string& key, int64_t layers, int64_t largest) const {
  const auto found = file_.metadata().find(full(key));
  const auto* list =
      found == file_.metadata().end() ? nullptr : std::get_if<std::vector<int64_t>>(&found->second);
  if (!list) return size(key, largest);
  if (std::ssize(*list) != layers)
    refuse(key, fmt::format("is a list of {} numbers, but the model has {} layers", list->size(), layers));
  for (size_t i = 0; i < list->size(); ++i)
    if ((*list)[i] != list->front())
      refuse(key, fmt::format("is {} for layer 1 and {} for layer {}; layers of different sizes are not "
                              "supported",
                              list->front(), (*list)[i], i + 1));
  return in_range(key, list->front(), largest);
}

int64_t LlamaMetadata::size_of_all_or(const std::string& key, int64_t absent, int64_t layers,
                                      int64_t largest) const {
  return file_.metadata().contains(full(key)) ? size_of_all(key, layers, largest) : absent;
}

double LlamaMetadata::number(const std::string& key) const {
  return checked(key, file_.get<double>(full(key)));
}

std::optional<double> LlamaMetadata::find_number(const std::string& key) const {
  const auto* value = file_.find<double>(full(key));
  return value ? std::optional(checked(key, *value)) : std::nullopt;
}

std::optional<double> LlamaMetadata::find_number_or_zero(const std::string& key) const {
  const auto* value = file_.find<double>(full(key));
  if (value && *value == 0) return 0.0;
  return find_number(key);
}

std::optional<std::string> LlamaMetadata::find_text(const std::string& key) const {
  const auto* value = file_.find<std::string>(full(key));
  return value ? std::optional(*value) : std::nullopt;
}

void LlamaMetadata::refuse(const std::string& key, const std::string& problem) const {
  throw base::UserError("{}: {} {}", file_.path().string(), full(key), problem);
}

int64_t LlamaMetadata::in_range(const std::string& key, int64_t value, int64_t largest) const {
  if (value < 1 || value > largest)
    refuse(key, fmt::format("is {}, expected a number from 1 to {}", value, largest));
  return value;
}

double LlamaMetadata::checked(const std::string& key, double value) const {
  if (!(value > 0 && std::isfinite(value)))
    refuse(key, fmt::format("is {}, expected a positive, finite number", value));
  return std::stod(fmt::format("{}", static_cast<float>(value)));
}

}  // namespace ee::checkpoint
