// The short forms in which a command line names layers.
#include <algorithm>
#include <charconv>
#include <optional>

#include "ee/base/error.h"
#include "ee/base/text.h"
#include "ee/config/exit_spec.h"

namespace ee::config {

namespace {

constexpr std::string_view kForms = "expected a list 10,16,22, a slice 4::4 (start:stop:step) or every:1/4";

int64_t parse_integer(std::string_view text, std::string_view whole) {
  const auto trim = [&](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && trim(text.front())) text.remove_prefix(1);
  while (!text.empty() && trim(text.back())) text.remove_suffix(1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw base::UserError("layers \"{}\": \"{}\" is not a whole number; {}", whole, text, kForms);
  return value;
}

int64_t parse_layer(std::string_view text, std::string_view whole, int64_t layers) {
  const int64_t layer = parse_integer(text, whole);
  if (layer < 1 || layer > layers)
    throw base::UserError("layers \"{}\": layer {} is out of range; the model has layers 1 to {}", whole,
                          layer, layers);
  return layer;
}

std::vector<int64_t> parse_slice(std::string_view text, int64_t layers) {
  const auto parts = base::split(text, ':');
  if (parts.size() > 3) throw base::UserError("layers \"{}\": {}", text, kForms);
  const int64_t start = parts[0].empty() ? 1 : parse_layer(parts[0], text, layers);
  const int64_t stop = parts[1].empty() ? layers : parse_layer(parts[1], text, layers);
  const int64_t step = parts.size() < 3 || parts[2].empty() ? 1 : parse_integer(parts[2], text);
  if (step < 1) throw base::UserError("layers \"{}\": the step must be at least 1, got {}", text, step);
  if (start > stop)
    throw base::UserError("layers \"{}\": nothing selected, {} is after {}", text, start, stop);
  std::vector<int64_t> selected;
  for (int64_t layer = start;; layer += step) {
    selected.push_back(layer);
    if (step > stop - layer) return selected;
  }
}

std::vector<int64_t> parse_fraction(std::string_view fraction, std::string_view whole, int64_t layers) {
  const auto parts = base::split(fraction, '/');
  if (parts.size() != 2) throw base::UserError("layers \"{}\": {}", whole, kForms);
  const int64_t numerator = parse_integer(parts[0], whole), denominator = parse_integer(parts[1], whole);
  constexpr int64_t kLargest = 1'000'000;  // keeps the products below in range
  if (numerator < 1 || denominator > kLargest || numerator > denominator)
    throw base::UserError("layers \"{}\": the fraction must be above 0 and at most 1", whole);
  // From one layer apart on, rounding to the nearest layer never gives the same layer twice.
  if (numerator * layers < denominator)
    throw base::UserError("layers \"{}\": the fraction is finer than one of {} layers", whole, layers);
  std::vector<int64_t> selected;
  for (int64_t i = 1; i * numerator <= denominator; ++i)
    selected.push_back((2 * i * numerator * layers + denominator) / (2 * denominator));
  return selected;
}

}  // namespace

std::vector<int64_t> parse_layers(std::string_view text, int64_t layers) {
  constexpr std::string_view kEvery = "every:";
  if (text.find_first_not_of(" \t") == std::string_view::npos)
    throw base::UserError("layers: nothing selected; {}", kForms);
  if (text.starts_with(kEvery)) return parse_fraction(text.substr(kEvery.size()), text, layers);
  if (text.find(':') != std::string_view::npos) return parse_slice(text, layers);
  std::vector<int64_t> selected;
  for (const auto& part : base::split(text, ',')) selected.push_back(parse_layer(part, text, layers));
  std::sort(selected.begin(), selected.end());
  const auto twice = std::adjacent_find(selected.begin(), selected.end());
  if (twice != selected.end()) throw base::UserError("layers \"{}\": layer {} is listed twice", text, *twice);
  return selected;
}

}  // namespace ee::config
