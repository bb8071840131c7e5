// The visitors that every set of declared options shares: read from JSON, write as JSON, check the limits.
#pragma once

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "json_value.h"

namespace ee::config {

// Overwrites the options whose keys are in `object`, and reports unknown keys and wrong types.
class JsonReader {
 public:
  // `everywhere`: paths of all options, to tell where a key that is not in this section belongs.
  JsonReader(const Json& object, std::string prefix, const std::vector<std::string>& everywhere,
             Problems& problems)
      : object_(object), prefix_(std::move(prefix)), everywhere_(everywhere), problems_(problems) {}

  template <typename Options>
  void read(Options& options) {
    visit(*this, options);
    for (const auto& [key, value] : object_.items()) report_if_unknown(key);
  }

  template <typename T>
  void operator()(T& field, const char* key, const char*, const Limits& = {}) {
    if (const Json* value = find(key)) read_value(field, *value, prefix_ + key, problems_);
  }

  template <typename Section>
  void section(Section& section, const char* key, const char*) {
    const Json* value = find(key);
    if (!value) return;
    if constexpr (requires { Section::kShorthand; }) {
      if (value->is_string()) return read_object(section, Json{{Section::kShorthand, *value}}, prefix_ + key);
    }
    read_object(section, *value, prefix_ + key);
  }

  template <typename Element>
  void list(std::vector<Element>& elements, const char* key, const char*) {
    const Json* value = find(key);
    if (!value) return;
    if (!value->is_array())
      return problems_.add(prefix_ + key, "expected list of objects, got " + describe(*value));
    elements.assign(value->size(), {});
    for (std::size_t i = 0; i < elements.size(); ++i)
      read_object(elements[i], (*value)[i], fmt::format("{}{}[{}]", prefix_, key, i));
  }

 private:
  const Json* find(const char* key) {
    known_.emplace_back(key);
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }

  template <typename Options>
  void read_object(Options& options, const Json& value, const std::string& path) {
    if (!value.is_object()) return problems_.add(path, "expected object {...}, got " + describe(value));
    JsonReader(value, path + ".", everywhere_, problems_).read(options);
  }

  void report_if_unknown(const std::string& key) const;

  const Json& object_;
  std::string prefix_;
  const std::vector<std::string>& everywhere_;
  Problems& problems_;
  std::vector<std::string> known_;
};

// Every option, defaults as well; an optional one without a value is left out.
class JsonWriter {
 public:
  template <typename Options>
  static Json write(Options options) {
    JsonWriter writer;
    visit(writer, options);
    return std::move(writer.object_);
  }

  template <typename T>
  void operator()(const T& field, const char* key, const char*, const Limits& = {}) {
    Json value = write_value(field);
    if (!value.is_null()) object_[key] = std::move(value);
  }

  template <typename Section>
  void section(const Section& section, const char* key, const char*) {
    object_[key] = write(section);
  }

  template <typename Element>
  void list(const std::vector<Element>& elements, const char* key, const char*) {
    Json list = Json::array();
    for (const auto& element : elements) list.push_back(write(element));
    object_[key] = std::move(list);
  }

 private:
  Json object_ = Json::object();
};

// Limits and required options. An option with a known problem is not reported again.
class OptionChecker {
 public:
  OptionChecker(std::string prefix, Problems& problems) : prefix_(std::move(prefix)), problems_(problems) {}

  template <typename T>
  void operator()(const T& field, const char* key, const char*, const Limits& limits = {}) {
    const std::string path = prefix_ + key;
    if (problems_.mentions(path)) return;
    if (limits.required && field == T{})
      return problems_.add(
          path, fmt::format("required, but missing or {}", std::is_same_v<T, int64_t> ? "0" : "empty"));
    check(field, path, limits);
  }

  template <typename Section>
  void section(Section& section, const char* key, const char*) {
    OptionChecker checker(prefix_ + key + ".", problems_);
    visit(checker, section);
  }

  template <typename Element>
  void list(std::vector<Element>& elements, const char* key, const char*) {
    for (std::size_t i = 0; i < elements.size(); ++i) {
      OptionChecker checker(fmt::format("{}{}[{}].", prefix_, key, i), problems_);
      visit(checker, elements[i]);
    }
  }

 private:
  template <typename T>
  void check(const T& field, const std::string& path, const Limits& limits) {
    if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double>) {
      if (!limits.allow(static_cast<double>(field)))
        problems_.add(path, fmt::format("must be {}, got {}", limits.text(), field));
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (limits.required && field.empty()) problems_.add(path, "must not be empty");
    } else if constexpr (IsVector<T>::value) {
      for (std::size_t i = 0; i < field.size(); ++i) check(field[i], fmt::format("{}[{}]", path, i), limits);
    } else if constexpr (IsOptional<T>::value) {
      if (field) check(*field, path, limits);
    }
  }

  std::string prefix_;
  Problems& problems_;
};

}  // namespace ee::config
