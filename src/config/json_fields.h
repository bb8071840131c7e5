// Keys of a JSON object that another program wrote: those we need, of the type we expect; the rest is
// ignored.
#pragma once

#include "json_value.h"

namespace ee::config {

class JsonFields {
 public:
  // `prefix`: path of the object inside its file, "" or "rope_scaling.".
  JsonFields(const Json& object, std::string prefix, Problems& problems)
      : object_(object), prefix_(std::move(prefix)), problems_(problems) {}

  // An absent or null key is nullopt; one of the wrong type is a problem.
  template <typename T>
  std::optional<T> find(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end() || found->is_null()) return std::nullopt;
    T value{};
    read_value(value, *found, prefix_ + key, problems_);
    return value;
  }

  // An absent key is a problem, and the value is T{}.
  template <typename T>
  T get(const char* key) const {
    const auto value = find<T>(key);
    if (!value) problem(key, fmt::format("required, but missing; expected {}", type_text<T>()));
    return value.value_or(T{});
  }

  // A size of the model: 1 to `largest`.
  int64_t size(const char* key, int64_t largest) const {
    return checked_size(key, get<int64_t>(key), largest);
  }
  int64_t size_or(const char* key, int64_t absent, int64_t largest) const {
    return checked_size(key, find<int64_t>(key).value_or(absent), largest);
  }

  double positive(const char* key) const {
    const double value = get<double>(key);
    if (!(value > 0) && !known_problem(key)) problem(key, fmt::format("must be > 0, got {}", value));
    return value;
  }

  void problem(const char* key, const std::string& text) const { problems_.add(prefix_ + key, text); }
  bool known_problem(const char* key) const { return problems_.mentions(prefix_ + key); }
  const Json& object() const { return object_; }

 private:
  int64_t checked_size(const char* key, int64_t value, int64_t largest) const {
    if ((value < 1 || value > largest) && !known_problem(key))
      problem(key, fmt::format("must be in [1, {}], got {}", largest, value));
    return value;
  }

  const Json& object_;
  std::string prefix_;
  Problems& problems_;
};

}  // namespace ee::config
