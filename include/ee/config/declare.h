// What the declaration of an option is made of: the names of an enum's values, and the limits of a number.
#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "ee/base/error.h"

namespace ee::config {

// Every enum that files can name has an overload `constexpr std::array<EnumName<E>, N> enum_names(E)` beside
// it.
template <typename Enum>
struct EnumName {
  Enum value;
  std::string_view name;
};

template <typename Enum>
std::string_view name_of(Enum value) {
  for (const auto& [known, name] : enum_names(Enum{}))
    if (known == value) return name;
  EE_CHECK(false, "enum value {} has no name", static_cast<int>(value));
}

template <typename Enum>
std::optional<Enum> value_of(std::string_view wanted) {
  for (const auto& [value, name] : enum_names(Enum{}))
    if (name == wanted) return value;
  return std::nullopt;
}

// Which values an option may take. Numbers must be finite in any case; `required` refuses an empty value.
struct Limits {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_excluded = false;
  bool max_excluded = false;
  bool required = false;

  bool allow(double value) const {
    return std::isfinite(value) && (min_excluded ? value > min : value >= min) &&
           (max_excluded ? value < max : value <= max);
  }

  std::string text() const {  // "> 0", ">= 1", "in [0, 1)"
    if (std::isinf(min)) return "finite";
    if (std::isinf(max)) return fmt::format("{} {}", min_excluded ? ">" : ">=", min);
    return fmt::format("in {}{}, {}{}", min_excluded ? '(' : '[', min, max, max_excluded ? ')' : ']');
  }
};

constexpr Limits at_least(double min) { return {.min = min}; }
constexpr Limits more_than(double min) { return {.min = min, .min_excluded = true}; }
constexpr Limits fraction() { return {.min = 0, .max = 1}; }
constexpr Limits below_one() { return {.min = 0, .max = 1, .max_excluded = true}; }
constexpr Limits required() { return {.required = true}; }

}  // namespace ee::config
