// Small helpers for messages to people.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ee::base {

// The candidate with the smallest edit distance to `name`, or "" when none is near (more than half of it
// differs).
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

std::string format_bytes(double bytes);       // 1536 -> "1.5 KiB"
std::string format_count(double count);       // 1234567 -> "1.23 M"
std::string format_duration(double seconds);  // 3725 -> "1:02:05"
std::string join(std::span<const std::string> parts, std::string_view separator);
std::vector<std::string> split(std::string_view text, char separator);

}  // namespace ee::base
