// Gradient norms over ranks, and what follows from them.
#pragma once

#include <c10/core/Device.h>

#include <optional>
#include <span>
#include <vector>

#include "ee/comm/group.h"
#include "ee/config/tune_options.h"

namespace ee::optim {

// The values of each rank, in group order: all ranks compute the same bits from them.
std::vector<std::vector<double>> gather_values(const std::optional<comm::Group>& group, at::Device device,
                                               const std::vector<double>& values);

// Each value summed over the ranks, in their order.
std::vector<double> sum_values(const std::optional<comm::Group>& group, at::Device device,
                               const std::vector<double>& values);

// The 2-norm of all exits, from the norm of each.
double combine_norms(std::span<const double> norms);

// By what the gradients of each exit are to be multiplied so that norms (one an exit; `global` of all exits)
// obey the limit.
std::vector<double> clip_factors(std::span<const double> norms, double global, config::ClipMode mode,
                                 double clip_norm);

}  // namespace ee::optim
