#include "grid_state.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <map>
#include <memory>

#include "backbone_groups.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/exits/exit_head.h"

namespace ee::train {
using base::UserError;
using checkpoint::TensorSource, checkpoint::TensorSources;

namespace {

constexpr const char* kFirstMoment = ".first_moment";
constexpr const char* kSecondMoment = ".second_moment";

// One trained tensor, wherever its parts are.
struct TrainedTensor {
  std::string name;
  model::TensorShape shape;
  std::vector<int64_t> stages;  // that hold it; what is told of it is the first one's
};

int64_t stage_of(const Job& job, size_t exit) {
  for (const auto& stage : job.stages)
    if (exit < stage.first_exit + stage.exit_count) return stage.index;
  EE_CHECK(false, "exit {} is on no stage", exit);
}

std::vector<TrainedTensor> exit_tensors(const Job& job) {
  std::vector<TrainedTensor> tensors;
  for (size_t i = 0; i < job.exits.size(); ++i) {
    exits::ExitHead empty;
    empty.spec = job.exits[i];
    exits::visit_exit(job.folder.config(), empty,
                      [&](const std::string& name, const model::TensorShape& shape, at::Tensor&) {
                        tensors.push_back({name, shape, {stage_of(job, i)}});
                      });
  }
  return tensors;
}

// Empty where the backbone is frozen.
std::vector<TrainedTensor> backbone_tensors(const Job& job) {
  std::vector<TrainedTensor> tensors;
  if (!job.options.train.backbone()) return tensors;
  for (const auto& stage : job.stages)
    for (const auto& group : backbone_groups(job.folder.config(), stage))
      if (group.stages.front() == stage.index)
        for (const auto& tensor : group.tensors) tensors.push_back({tensor.name, tensor.shape, group.stages});
  return tensors;
}

std::vector<TrainedTensor> trained_tensors(const Job& job) {
  auto tensors = exit_tensors(job);
  for (auto& tensor : backbone_tensors(job)) tensors.push_back(std::move(tensor));
  return tensors;
}

// Index of the optimizer's group that has the parameter.
size_t group_of(const Engine& engine, const std::string& name) {
  const auto& groups = engine.optimizer().groups();
  for (size_t i = 0; i < groups.size(); ++i)
    for (const auto& parameter : groups[i].parameters)
      if (parameter.name == name) return i;
  EE_CHECK(false, "{} is not trained here", name);
}

const optim::Parameter& parameter_of(const Engine& engine, const std::string& name) {
  const auto& parameters = engine.optimizer().groups()[group_of(engine, name)].parameters;
  return *std::ranges::find(parameters, name, &optim::Parameter::name);
}

// Brings the slices of `tensor` to rank 0. `own`: this rank's; undefined where it has none.
at::Tensor gather_to_first(const Job& job, const parallel::Ranks& ranks, const TrainedTensor& tensor,
                           const at::Tensor& own) {
  const int64_t tensor_ranks = job.grid.tensor;
  const int64_t owners = tensor.shape.split == parallel::Split::none ? 1 : tensor_ranks;
  const auto owner = [&](int64_t t) {
    return ranks.grid.rank_of({.tensor = t, .pipeline = tensor.stages.front(), .data = 0});
  };
  at::Tensor whole;
  if (ranks.is_first())
    whole = at::empty(tensor.shape.sizes, at::TensorOptions(at::kFloat).device(ranks.device));
  for (int64_t t = 0; t < owners; ++t) {
    if (owner(t) == ranks.grid.rank() && !ranks.is_first())
      ranks.all.send(own.detach().to(ranks.device).contiguous(), 0);
    if (!ranks.is_first()) continue;
    const auto slice =
        parallel::slice_of(job.folder.config(), tensor.shape.split, tensor.shape.sizes, t, tensor_ranks);
    const at::Tensor place = whole.narrow(slice.axis, slice.begin, slice.length);
    if (owner(t) == 0) {
      place.copy_(own.detach());
    } else {
      const at::Tensor part = at::empty(place.sizes(), place.options());
      ranks.all.receive(part, static_cast<int>(owner(t)));
      place.copy_(part);
    }
  }
  return whole;
}

bool is_held(const Engine& engine, const TrainedTensor& tensor) {
  return std::ranges::count(tensor.stages, engine.stage().index) > 0;
}
bool is_own(const Engine& engine, const TrainedTensor& tensor) {
  return tensor.stages.front() == engine.stage().index;
}

TensorSource master_source(const Job& job, const Engine& engine, const TrainedTensor& tensor) {
  return {tensor.name, tensor.shape.sizes, [&job, &engine, tensor] {
            const bool own = is_own(engine, tensor);
            const at::Tensor master = own ? parameter_of(engine, tensor.name).master : at::Tensor();
            return engine.ranks() ? gather_to_first(job, *engine.ranks(), tensor, master) : master;
          }};
}

// The moments of one group at a time: they are gathered together where replicas share them.
class MomentReader {
 public:
  explicit MomentReader(const Engine& engine) : engine_(engine) {}

  const optim::Moments& of(const std::string& name) {
    const size_t group = group_of(engine_, name);
    if (group_ != group) moments_ = engine_.optimizer().moments(group);
    group_ = group;
    return moments_.at(name);
  }

 private:
  const Engine& engine_;
  std::optional<size_t> group_;
  std::map<std::string, optim::Moments> moments_;
};

TensorSource moment_source(const Job& job, const Engine& engine, const TrainedTensor& tensor,
                           const char* suffix, const std::shared_ptr<MomentReader>& reader) {
  const bool first = suffix == kFirstMoment;
  return {tensor.name + suffix, tensor.shape.sizes, [&job, &engine, tensor, first, reader] {
            at::Tensor moment;
            if (is_own(engine, tensor)) {
              const auto& moments = reader->of(tensor.name);
              moment = first ? moments.first : moments.second;
            }
            return engine.ranks() ? gather_to_first(job, *engine.ranks(), tensor, moment) : moment;
          }};
}

void check_tensor(const checkpoint::TensorFiles& files, const std::string& name,
                  const model::TensorShape& shape) {
  if (!files.contains(name)) throw UserError("the checkpoint has no tensor {}", name);
  if (files.at(name).shape != shape.sizes)
    throw UserError("the checkpoint's tensor {} has another shape than the model's", name);
}

}  // namespace

checkpoint::TrainingTensors training_tensors(const Job& job, Engine& engine) {
  checkpoint::TrainingTensors tensors;
  const auto reader = std::make_shared<MomentReader>(engine);
  for (const auto& tensor : trained_tensors(job)) {
    tensors.exits.push_back(master_source(job, engine, tensor));
    for (const char* suffix : {kFirstMoment, kSecondMoment})
      tensors.optimizer.push_back(moment_source(job, engine, tensor, suffix, reader));
  }
  return tensors;
}

ModelTensors model_tensors(const Job& job, Engine& engine) {
  std::map<std::string, TensorSource> trained;
  for (const auto& tensor : exit_tensors(job)) trained[tensor.name] = master_source(job, engine, tensor);
  ModelTensors tensors;
  for (const auto& tensor : backbone_tensors(job))
    tensors.backbone.push_back(master_source(job, engine, tensor));
  TensorSources& sources = tensors.exits;
  for (const auto& entry : checkpoint::exit_table(job.folder.config(), job.folder.exits().exits)) {
    if (const auto found = trained.find(entry.name); found != trained.end())
      sources.push_back(found->second);
    else
      sources.push_back({entry.name, entry.shape,
                         [&job, name = entry.name] { return job.folder.exit_files().alias(name); }});
  }
  return tensors;
}

void take_part(const TensorSources& sources) {
  for (const auto& source : sources) source.get();
}

void restore(const checkpoint::TrainingCheckpoint& checkpoint, const Job& job, Engine& engine) {
  const c10::AutoGradMode no_grad(false);
  const auto tensors = trained_tensors(job);
  for (const auto& tensor : tensors) {
    check_tensor(checkpoint.exits, tensor.name, tensor.shape);
    for (const char* suffix : {kFirstMoment, kSecondMoment})
      check_tensor(checkpoint.optimizer, tensor.name + suffix, tensor.shape);
  }
  if (checkpoint.exits.names().size() != tensors.size() ||
      checkpoint.optimizer.names().size() != 2 * tensors.size())
    throw UserError("the checkpoint has tensors that are not trained");

  const model::Backbone& backbone = engine.backbone();
  for (const auto& tensor : tensors) {
    if (!is_held(engine, tensor)) continue;
    const auto slice = backbone.ranks.own_slice(backbone.config, tensor.shape.split, tensor.shape.sizes);
    const auto read = [&](const checkpoint::TensorFiles& files, const std::string& name) {
      return files.read(name, slice, backbone.device(), at::kFloat);
    };
    parameter_of(engine, tensor.name).master.detach().copy_(read(checkpoint.exits, tensor.name));
    engine.optimizer().set_moments(group_of(engine, tensor.name), tensor.name,
                                   {.first = read(checkpoint.optimizer, tensor.name + kFirstMoment),
                                    .second = read(checkpoint.optimizer, tensor.name + kSecondMoment)});
  }
  engine.masters_changed();
}

}  // namespace ee::train
