#include "ee/optim/optimizer.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "clip.h"

namespace ee::optim {

namespace {

at::Tensor slice(const at::Tensor& flat, Range range) { return flat.slice(0, range.begin, range.end); }

void wait_for(std::vector<comm::Work>& works) {
  for (auto& work : works) work.wait();
  works.clear();
}

void sum_partial_gradients(const ParameterGroup& group) {
  std::vector<comm::Work> works;
  for (const auto& parameter : group.parameters)
    if (parameter.partial_over) works.push_back(parameter.partial_over->all_reduce_async(parameter.gradient));
  wait_for(works);
}

}  // namespace

Parameter Parameter::make(std::string name, at::Tensor master) {
  EE_CHECK(master.scalar_type() == at::kFloat, "master of {} is not float32", name);
  const bool decay = master.dim() > 1;
  return {.name = std::move(name), .master = std::move(master), .decay = decay};
}

std::string ParameterGroup::title() const {
  return name.empty() ? fmt::format("exit at layer {}", layer) : name;
}

// Buffers ------------------------------------------------------------

Optimizer::Optimizer(const config::OptimizerOptions& options, std::vector<ParameterGroup> groups,
                     ReduceRanks ranks, bool shard_state, int64_t bucket_bytes)
    : options_(options), groups_(std::move(groups)), ranks_(std::move(ranks)), shard_state_(shard_state) {
  const c10::AutoGradMode no_grad(false);
  for (auto& group : groups_) flats_.push_back(flatten(group, bucket_bytes));
  for (size_t i = 0; i < groups_.size(); ++i) groups_[i].active ? give_gradients(i) : take_gradients(i);
}

Optimizer::Flat Optimizer::flatten(ParameterGroup& group, int64_t bucket_bytes) const {
  std::vector<int64_t> sizes;
  for (const auto& parameter : group.parameters) sizes.push_back(parameter.master.numel());
  Flat flat{.layout = FlatLayout(sizes, data_ranks(), bucket_bytes / static_cast<int64_t>(sizeof(float)))};
  int64_t owned = 0;
  for (const Range bucket : flat.layout.buckets()) {
    const Range mine = shard_state_ ? share(flat, bucket) : bucket;
    for (const Part& part : flat.layout.parts(mine)) {
      const int64_t begin = owned + part.flat.begin - mine.begin;
      flat.updated.push_back({part, {begin, begin + part.flat.size()}});
    }
    owned += mine.size();
  }
  const auto like = group.parameters.empty() ? at::TensorOptions(at::kFloat)
                                             : group.parameters.front().master.options().requires_grad(false);
  const auto zeros = [&](int64_t count) { return at::zeros({count}, like); };
  flat.master = zeros(flat.layout.size());
  flat.first_moment = zeros(owned), flat.second_moment = zeros(owned);
  for (size_t i = 0; i < sizes.size(); ++i) {
    auto& parameter = group.parameters[i];
    const Range range = flat.layout.parameters()[i];
    const at::Tensor view = slice(flat.master, range).view(parameter.master.sizes());
    view.copy_(parameter.master);
    parameter.master.set_data(view);  // every handle of this tensor sees the buffer from now on
  }
  return flat;
}

void Optimizer::give_gradients(size_t index) {
  auto& flat = flats_[index];
  flat.gradient = at::zeros_like(flat.master);
  flat.first_moment = flat.first_moment.to(flat.master.device());
  flat.second_moment = flat.second_moment.to(flat.master.device());
  auto& parameters = groups_[index].parameters;
  for (size_t i = 0; i < parameters.size(); ++i) {
    auto& parameter = parameters[i];
    parameter.gradient = slice(flat.gradient, flat.layout.parameters()[i]).view(parameter.master.sizes());
    parameter.master.set_requires_grad(true);
    parameter.master.mutable_grad() = parameter.gradient;
  }
}

void Optimizer::take_gradients(size_t index) {
  auto& flat = flats_[index];
  for (auto& parameter : groups_[index].parameters) {
    parameter.gradient.reset();
    parameter.master.mutable_grad().reset();
    parameter.master.set_requires_grad(false);
  }
  flat.gradient.reset();
  flat.first_moment = flat.first_moment.to(at::kCPU);
  flat.second_moment = flat.second_moment.to(at::kCPU);
}

void Optimizer::activate(size_t index, bool active) {
  const c10::AutoGradMode no_grad(false);
  if (std::exchange(groups_.at(index).active, active) == active) return;
  EE_CHECK(!flats_[index].reduced, "the {} is under way", groups_[index].title());
  active ? give_gradients(index) : take_gradients(index);
}

Range Optimizer::share(const Flat& flat, Range bucket) const {
  return flat.layout.share(bucket, ranks_.data ? ranks_.data->rank() : 0);
}

// Gradients ------------------------------------------------------------

void Optimizer::reduce(size_t index) {
  const c10::AutoGradMode no_grad(false);
  wait_for(works_);
  const auto& group = groups_.at(index);
  auto& flat = flats_[index];
  EE_CHECK(group.active, "the {} is not trained in this step", group.title());
  EE_CHECK(!std::exchange(flat.reduced, true), "{} reduced twice in a step", group.title());
  for (const auto& parameter : group.parameters)
    EE_CHECK(parameter.master.grad().is_same(parameter.gradient), "the gradient of {} has left its buffer",
             parameter.name);
  sum_partial_gradients(group);
  if (!ranks_.data) return;
  for (const Range bucket : flat.layout.buckets()) {
    const at::Tensor gradient = slice(flat.gradient, bucket);
    works_.push_back(
        shard_state_ ? ranks_.data->reduce_scatter_async(slice(flat.gradient, share(flat, bucket)), gradient)
                     : ranks_.data->all_reduce_async(gradient));
  }
}

// Each data-parallel rank looks at its share, also when all have all gradients: less work, and all get the
// same bits.
std::vector<double> Optimizer::norms() const {
  std::vector<double> squares;
  for (size_t i = 0; i < groups_.size(); ++i) {
    double sum = 0.0;
    for (const Range bucket : groups_[i].active ? flats_[i].layout.buckets() : std::vector<Range>{})
      for (const Part& part : flats_[i].layout.parts(share(flats_[i], bucket))) {
        const double norm = at::linalg_vector_norm(slice(flats_[i].gradient, part.flat)).item<double>();
        sum += norm * norm / static_cast<double>(groups_[i].parameters[part.parameter].tensor_copies);
      }
    squares.push_back(sum);
  }
  squares = sum_values(ranks_.data, ranks_.device, squares);
  squares = sum_values(ranks_.tensor, ranks_.device, squares);
  for (double& value : squares) value = std::sqrt(value);
  return squares;
}

double Optimizer::global_norm(const std::vector<double>& norms) const {
  double global = 0.0;
  for (size_t i = 0; i < norms.size(); ++i)
    global = std::hypot(global, norms[i] / std::sqrt(static_cast<double>(groups_[i].stages)));
  if (!ranks_.pipeline || options_.clip != config::ClipMode::global) return global;
  std::vector<double> stages;
  for (const auto& row : gather_values(ranks_.pipeline, ranks_.device, {global})) stages.push_back(row[0]);
  return combine_norms(stages);
}

void Optimizer::check_finite(const std::vector<double>& norms, double global, int64_t step) const {
  constexpr const char* kAdvice = "lower optimizer.lr, or look for broken weights with ee-convert verify";
  for (size_t i = 0; i < norms.size(); ++i)
    if (!std::isfinite(norms[i]))
      throw base::UserError("the gradient of the {} is not finite at step {}; {}", groups_[i].title(),
                            step + 1, kAdvice);
  if (!std::isfinite(global))
    throw base::UserError("a gradient of another pipeline stage is not finite at step {}; {}", step + 1,
                          kAdvice);
}

// Update ------------------------------------------------------------

std::vector<double> Optimizer::step(double learning_rate, int64_t step, std::optional<int64_t> updates) {
  const c10::AutoGradMode no_grad(false);
  wait_for(works_);
  for (size_t i = 0; i < flats_.size(); ++i)
    EE_CHECK(flats_[i].reduced == groups_[i].active, "the {} was not reduced in step {}", groups_[i].title(),
             step);
  const auto norms = this->norms();
  const double global = global_norm(norms);
  check_finite(norms, global, step);
  const auto factors = clip_factors(norms, global, options_.clip, options_.clip_norm);
  std::vector<comm::Work> gathering;
  for (size_t i = 0; i < flats_.size(); ++i) {
    if (!groups_[i].active) continue;
    update(i, learning_rate, updates.value_or(step), factors[i]);
    flats_[i].gradient.zero_();
    flats_[i].reduced = false;
    if (shard_state_)
      std::ranges::move(gather_shares(flats_[i], flats_[i].master), std::back_inserter(gathering));
  }
  wait_for(gathering);
  return norms;
}

void Optimizer::update(size_t index, double learning_rate, int64_t step, double factor) {
  const auto& flat = flats_[index];
  const auto scalar = [&](double value) { return at::full({}, value, flat.master.options()); };
  std::optional<at::Tensor> divisor;  // of the gradients
  if (factor != 1.0) divisor = scalar(1.0 / factor);
  for (const auto& [part, state] : flat.updated) {
    const bool decay = groups_[index].parameters[part.parameter].decay;
    at::_fused_adamw_({slice(flat.master, part.flat)}, {slice(flat.gradient, part.flat)},
                      {slice(flat.first_moment, state)}, {slice(flat.second_moment, state)}, {},
                      {scalar(static_cast<double>(step + 1))}, learning_rate, options_.beta1, options_.beta2,
                      decay ? options_.weight_decay : 0.0, options_.eps,
                      /*amsgrad=*/false, /*maximize=*/false, divisor);
  }
}

// Starts to fill `buffer`, of which each data-parallel rank has its share.
std::vector<comm::Work> Optimizer::gather_shares(const Flat& flat, const at::Tensor& buffer) const {
  std::vector<comm::Work> works;
  if (!ranks_.data) return works;
  for (const Range bucket : flat.layout.buckets())
    works.push_back(ranks_.data->all_gather_async(slice(buffer, bucket), slice(buffer, share(flat, bucket))));
  return works;
}

// Moments ------------------------------------------------------------

at::Tensor Optimizer::whole(const Flat& flat, const at::Tensor& state) const {
  if (!shard_state_ || !ranks_.data) return state;
  at::Tensor buffer = at::zeros({flat.layout.size()}, flat.master.options());
  for (const auto& piece : flat.updated) slice(buffer, piece.part.flat).copy_(slice(state, piece.state));
  auto works = gather_shares(flat, buffer);
  wait_for(works);
  return buffer;
}

std::map<std::string, Moments> Optimizer::moments(size_t index) const {
  const auto& flat = flats_.at(index);
  const at::Tensor first = whole(flat, flat.first_moment), second = whole(flat, flat.second_moment);
  std::map<std::string, Moments> moments;
  for (size_t i = 0; i < groups_[index].parameters.size(); ++i) {
    const auto& parameter = groups_[index].parameters[i];
    const auto view = [&](const at::Tensor& buffer) {
      return slice(buffer, flat.layout.parameters()[i]).view(parameter.master.sizes());
    };
    moments[parameter.name] = {.first = view(first), .second = view(second)};
  }
  return moments;
}

void Optimizer::set_moments(size_t index, const std::string& name, const Moments& moments) {
  const auto& flat = flats_.at(index);
  const auto& parameters = groups_[index].parameters;
  const auto found = std::ranges::find(parameters, name, &Parameter::name);
  EE_CHECK(found != parameters.end(), "no parameter {}", name);
  EE_CHECK(moments.first.sizes() == found->master.sizes() && moments.second.sizes() == found->master.sizes(),
           "moments of {} have another shape", name);
  const auto number = static_cast<size_t>(found - parameters.begin());
  const int64_t begin = flat.layout.parameters()[number].begin;
  for (const auto& [part, state] : flat.updated) {
    if (part.parameter != number) continue;
    const Range own = {part.flat.begin - begin, part.flat.end - begin};  // in the parameter
    slice(flat.first_moment, state).copy_(slice(moments.first.reshape({-1}), own));
    slice(flat.second_moment, state).copy_(slice(moments.second.reshape({-1}), own));
  }
}

}  // namespace ee::optim
