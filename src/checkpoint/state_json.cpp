#include "state_json.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"

namespace ee::checkpoint {
using Json = nlohmann::ordered_json;

namespace {

// Each field once, for both directions.
template <typename State, typename Visitor>
void visit(State& state, Visitor&& v) {
  v("step", state.step);
  v("samples_consumed", state.samples_consumed);
  v("rng", state.rng);
  v("config_echo", state.config_echo);
  v("model_fingerprint", state.model_fingerprint);
  v("metric", state.metric);
  v("best_metric", state.best_metric);
  v("metrics", state.metrics);
}

template <typename T>
Json to_json(const T& value) {
  return value;
}
// JSON has no NaN: what is not finite is left out, so that a run that diverges can still be saved and read.
Json to_json(const std::map<std::string, double>& values) {
  Json json = Json::object();
  for (const auto& [key, value] : values)
    if (std::isfinite(value)) json[key] = value;
  return json;
}
template <typename T>
Json to_json(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

template <typename T>
void from_json(const Json& json, T& value) {
  value = json.get<T>();
}
template <typename T>
void from_json(const Json& json, std::optional<T>& value) {
  if (json.is_null())
    value.reset();
  else
    value = json.get<T>();
}

}  // namespace

std::string write_state(const TrainingState& state) {
  Json json = {{"format_version", 1}};
  visit(state, [&](const char* key, const auto& value) { json[key] = to_json(value); });
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";  // of bytes that are not UTF-8
}

TrainingState read_state(const std::filesystem::path& file) {
  const Json json = Json::parse(base::read_text_file(file), nullptr, false);
  TrainingState state;
  try {
    visit(state, [&](const char* key, auto& value) { from_json(json.at(key), value); });
  } catch (const Json::exception& error) {
    throw base::UserError("{} is not the state of a training run: {}", file.string(), error.what());
  }
  return state;
}

}  // namespace ee::checkpoint
