#include "problems.h"

#include <algorithm>

#include "ee/base/error.h"

namespace ee::config {

namespace {

bool is_part_of(std::string_view part, std::string_view whole) {
  return part.starts_with(whole) &&
         (part.size() == whole.size() || part[whole.size()] == '.' || part[whole.size()] == '[');
}

}  // namespace

void Problems::add(const std::string& path, const std::string& text) {
  problems_.push_back({path, path.empty() ? text : fmt::format("{}{}: {}", source_, path, text)});
}

bool Problems::mentions(const std::string& path) const {
  return std::any_of(problems_.begin(), problems_.end(), [&](const Problem& problem) {
    return is_part_of(problem.path, path) || is_part_of(path, problem.path);
  });
}

void Problems::throw_if_any() const {
  if (problems_.empty()) return;
  if (problems_.size() == 1) throw base::UserError("{}: {}", origin_, problems_.front().message);
  std::string text = fmt::format("{}: {} problems", origin_, problems_.size());
  for (const auto& problem : problems_) text += "\n  " + problem.message;
  throw base::UserError(text);
}

std::string did_you_mean(std::string_view name) {
  return name.empty() ? "" : fmt::format(" (did you mean {}?)", name);
}

}  // namespace ee::config
