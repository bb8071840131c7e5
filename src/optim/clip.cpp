#include "clip.h"

#include <cmath>

namespace ee::optim {

std::vector<std::vector<double>> gather_values(const std::optional<comm::Group>& group, at::Device device,
                                               const std::vector<double>& values) {
  if (!group) return {values};
  const auto count = static_cast<int64_t>(values.size());
  // Groups know no doubles: their bits travel as integers.
  const at::Tensor mine = at::tensor(values, at::kDouble).view(at::kLong).to(device);  // [count]
  const at::Tensor all = at::empty({group->size() * count}, mine.options());           // [ranks * count]
  group->all_gather(all, mine);
  const at::Tensor doubles = all.cpu().view(at::kDouble);
  std::vector<std::vector<double>> rows;
  for (const double* row = doubles.const_data_ptr<double>(); std::ssize(rows) < group->size(); row += count)
    rows.emplace_back(row, row + count);
  return rows;
}

std::vector<double> sum_values(const std::optional<comm::Group>& group, at::Device device,
                               const std::vector<double>& values) {
  std::vector<double> sums(values.size(), 0.0);
  for (const auto& row : gather_values(group, device, values))
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += row[i];
  return sums;
}

double combine_norms(std::span<const double> norms) {
  double global = 0.0;
  for (const double norm : norms) global = std::hypot(global, norm);
  return global;
}

std::vector<double> clip_factors(std::span<const double> norms, double global, config::ClipMode mode,
                                 double clip_norm) {
  std::vector<double> factors(norms.size(), 1.0);
  if (mode == config::ClipMode::none) return factors;
  for (size_t i = 0; i < norms.size(); ++i) {
    const double norm = mode == config::ClipMode::global ? global : norms[i];
    if (norm > clip_norm) factors[i] = clip_norm / norm;
  }
  return factors;
}

}  // namespace ee::optim
