#include "rope_config.h"

#include <array>
#include <cmath>

#include "json_fields.h"

namespace ee::config {

// The names are rope_type's.
constexpr std::array<EnumName<RopeConfig::Scaling>, 3> enum_names(RopeConfig::Scaling) {
  return {{{RopeConfig::Scaling::none, "default"},
           {RopeConfig::Scaling::linear, "linear"},
           {RopeConfig::Scaling::llama3, "llama3"}}};
}

namespace {

void read_llama3(const JsonFields& fields, RopeConfig& rope) {
  rope.low_freq_factor = fields.positive("low_freq_factor");
  rope.high_freq_factor = fields.positive("high_freq_factor");
  rope.original_max_positions = fields.size("original_max_position_embeddings", SizeLimits::kPositions);
  if (rope.low_freq_factor >= rope.high_freq_factor && !fields.known_problem("low_freq_factor") &&
      !fields.known_problem("high_freq_factor"))
    fields.problem("low_freq_factor", fmt::format("must be below high_freq_factor {}, got {}",
                                                  rope.high_freq_factor, rope.low_freq_factor));
}

double read_theta(const JsonFields& fields, double absent) {
  const double theta = fields.find<double>("rope_theta").value_or(absent);
  if (!(theta > 0 && std::isfinite(theta)))
    fields.problem("rope_theta", fmt::format("must be > 0 and finite, got {}", theta));
  if (fields.find<double>("partial_rotary_factor").value_or(1.0) != 1.0)
    fields.problem("partial_rotary_factor", "is not supported; expected 1 or none");
  return theta;
}

// `outer_theta`: what stands beside the object.
RopeConfig read_parameters(const JsonFields& fields, double outer_theta) {
  RopeConfig rope{.theta = read_theta(fields, outer_theta)};
  const char* key = fields.object().contains("rope_type") ? "rope_type" : "type";
  rope.scaling = fields.find<RopeConfig::Scaling>(key).value_or(RopeConfig::Scaling::none);
  if (rope.scaling == RopeConfig::Scaling::none) return rope;
  rope.factor = fields.positive("factor");
  if (rope.scaling == RopeConfig::Scaling::llama3) read_llama3(fields, rope);
  return rope;
}

// The object at `key`, or null when it is absent or empty.
const Json* find_object(const Json& config, const char* key, Problems& problems) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null() || (found->is_object() && found->empty())) return nullptr;
  if (!found->is_object()) {
    problems.add(key, "expected object {...}, got " + describe(*found));
    return nullptr;
  }
  return &*found;
}

}  // namespace

RopeConfig read_rope(const Json& config, Problems& problems) {
  const double theta = read_theta(JsonFields(config, "", problems), RopeConfig{}.theta);
  const Json* old_spelling = find_object(config, "rope_scaling", problems);
  const Json* new_spelling = find_object(config, "rope_parameters", problems);
  std::string new_prefix = "rope_parameters.";
  // One set of parameters for each type of layer; all our layers are of the first type.
  if (new_spelling && new_spelling->contains("full_attention")) {
    new_spelling = find_object(*new_spelling, "full_attention", problems);
    new_prefix += "full_attention.";
  }
  if (!old_spelling && !new_spelling) return {.theta = theta};
  if (!new_spelling) return read_parameters(JsonFields(*old_spelling, "rope_scaling.", problems), theta);
  const RopeConfig rope = read_parameters(JsonFields(*new_spelling, new_prefix, problems), theta);
  if (old_spelling &&
      rope != read_parameters(JsonFields(*old_spelling, "rope_scaling.", problems), rope.theta))
    problems.add("rope_scaling", "contradicts rope_parameters; keep the one that is right");
  return rope;
}

void write_rope(const RopeConfig& rope, Json& config) {
  config["rope_theta"] = rope.theta;
  config["rope_scaling"] = nullptr;
  if (rope.scaling == RopeConfig::Scaling::none) return;
  Json& scaling = config["rope_scaling"];
  scaling = {{"rope_type", name_of(rope.scaling)}, {"factor", rope.factor}};
  if (rope.scaling == RopeConfig::Scaling::linear) return;
  scaling["low_freq_factor"] = rope.low_freq_factor;
  scaling["high_freq_factor"] = rope.high_freq_factor;
  scaling["original_max_position_embeddings"] = rope.original_max_positions;
}

}  // namespace ee::config
