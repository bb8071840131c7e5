// One option's value from and to JSON, by its C++ type.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "ee/base/text.h"
#include "ee/config/declare.h"
#include "json_text.h"
#include "problems.h"

namespace ee::config {

template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};
template <typename T>
struct IsOptional : std::false_type {};
template <typename T>
struct IsOptional<std::optional<T>> : std::true_type {};

template <typename Enum>
std::vector<std::string> enum_name_list() {
  std::vector<std::string> names;
  for (const auto& entry : enum_names(Enum{})) names.emplace_back(entry.name);
  return names;
}

// "integer", "list of text", "one of linear, cosine".
template <typename T>
std::string type_text() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, int64_t>) return "integer";
  if constexpr (std::is_same_v<T, double>) return "number";
  if constexpr (std::is_same_v<T, std::string>) return "text";
  if constexpr (std::is_enum_v<T>) return "one of " + base::join(enum_name_list<T>(), ", ");
  if constexpr (IsVector<T>::value) return "list of " + type_text<typename T::value_type>();
  if constexpr (IsOptional<T>::value) return type_text<typename T::value_type>();
}

// 1e6 is an integer, too; 2^63 and 0.5 are none.
inline std::optional<int64_t> exact_integer(const Json& value) {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    return std::nullopt;
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double number = value.get<double>();
  if (std::abs(number) > kExact || number != std::trunc(number)) return std::nullopt;
  return static_cast<int64_t>(number);
}

template <typename Enum>
std::optional<Enum> read_enum(std::string_view name, const std::string& path, Problems& problems) {
  const auto value = value_of<Enum>(name);
  if (!value)
    problems.add(path, fmt::format("\"{}\" is unknown; expected {}{}", name, type_text<Enum>(),
                                   did_you_mean(base::nearest_name(name, enum_name_list<Enum>()))));
  return value;
}

// Fills `field`, or leaves it and adds a problem.
template <typename T>
void read_value(T& field, const Json& value, const std::string& path, Problems& problems) {
  if constexpr (IsOptional<T>::value) {
    typename T::value_type content{};
    field.reset();
    if (value.is_null()) return;
    read_value(content, value, path, problems);
    field = content;
    return;
  } else if constexpr (IsVector<T>::value) {
    if (value.is_array()) {
      field.assign(value.size(), {});
      for (std::size_t i = 0; i < value.size(); ++i)
        read_value(field[i], value[i], fmt::format("{}[{}]", path, i), problems);
      return;
    }
  } else if constexpr (std::is_enum_v<T>) {
    if (value.is_string()) {
      if (const auto known = read_enum<T>(value.get_ref<const std::string&>(), path, problems))
        field = *known;
      return;
    }
  } else if constexpr (std::is_same_v<T, bool>) {
    if (value.is_boolean()) return void(field = value.get<bool>());
  } else if constexpr (std::is_same_v<T, int64_t>) {
    if (const auto integer = exact_integer(value)) return void(field = *integer);
  } else if constexpr (std::is_same_v<T, double>) {
    if (value.is_number()) return void(field = value.get<double>());
  } else {
    static_assert(std::is_same_v<T, std::string>);
    if (value.is_string()) return void(field = value.get<std::string>());
  }
  problems.add(path, fmt::format("expected {}, got {}", type_text<T>(), describe(value)));
}

template <typename T>
Json write_value(const T& field) {
  if constexpr (std::is_enum_v<T>) {
    return name_of(field);
  } else if constexpr (IsOptional<T>::value) {
    return field ? write_value(*field) : Json();
  } else {
    return field;
  }
}

}  // namespace ee::config
