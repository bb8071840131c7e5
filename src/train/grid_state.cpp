#include "grid_state.h"

#include <ATen/ops/empty.h>

#include <map>
#include <memory>

#include "ee/checkpoint/tensor_files.h"
#include "ee/exits/exit_head.h"

namespace ee::train {
using base::UserError;
using checkpoint::TensorSource, checkpoint::TensorSources;

namespace {

constexpr const char* kFirstMoment = ".first_moment";
constexpr const char* kSecondMoment = ".second_moment";

// One tensor of an exit, wherever its parts are.
struct ExitTensor {
  std::string name;
  model::TensorShape shape;
  size_t exit;  // index into Job::exits
};

std::vector<ExitTensor> exit_tensors(const Job& job) {
  std::vector<ExitTensor> tensors;
  for (size_t i = 0; i < job.exits.size(); ++i) {
    exits::ExitHead empty;
    empty.spec = job.exits[i];
    exits::visit_exit(job.folder.config(), empty,
                      [&](const std::string& name, const model::TensorShape& shape, at::Tensor&) {
                        tensors.push_back({name, shape, i});
                      });
  }
  return tensors;
}

size_t stage_of(const Job& job, size_t exit) {
  for (size_t s = 0; s < job.stages.size(); ++s)
    if (exit < job.stages[s].first_exit + job.stages[s].exit_count) return s;
  EE_CHECK(false, "exit {} is on no stage", exit);
}

const optim::Parameter& parameter_of(const Engine& engine, const std::string& name) {
  for (const auto& group : engine.optimizer().groups())
    for (const auto& parameter : group.parameters)
      if (parameter.name == name) return parameter;
  EE_CHECK(false, "{} is not trained here", name);
}

// Brings the slices of `tensor` to rank 0. `own`: this rank's; undefined where it has none.
at::Tensor gather_to_first(const Job& job, const parallel::Ranks& ranks, const ExitTensor& tensor,
                           const at::Tensor& own) {
  const int64_t tensor_ranks = job.grid.tensor;
  const int64_t owners = tensor.shape.split == parallel::Split::none ? 1 : tensor_ranks;
  const auto owner = [&](int64_t t) {
    return ranks.grid.rank_of(
        {.tensor = t, .pipeline = static_cast<int64_t>(stage_of(job, tensor.exit)), .data = 0});
  };
  at::Tensor whole;
  if (ranks.is_first())
    whole = at::empty(tensor.shape.sizes, at::TensorOptions(at::kFloat).device(ranks.device));
  for (int64_t t = 0; t < owners; ++t) {
    if (owner(t) == ranks.grid.rank() && !ranks.is_first()) ranks.all.send(own.detach().contiguous(), 0);
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

bool is_own(const Job& job, const Engine& engine, const ExitTensor& tensor) {
  const parallel::Ranks* ranks = engine.ranks();
  return !ranks || static_cast<int64_t>(stage_of(job, tensor.exit)) == ranks->grid.position().pipeline;
}

TensorSource master_source(const Job& job, const Engine& engine, const ExitTensor& tensor) {
  return {tensor.name, tensor.shape.sizes, [&job, &engine, tensor] {
            const bool own = is_own(job, engine, tensor);
            const at::Tensor master = own ? parameter_of(engine, tensor.name).master : at::Tensor();
            return engine.ranks() ? gather_to_first(job, *engine.ranks(), tensor, master) : master;
          }};
}

// The moments of one exit at a time: they are gathered together where replicas share them.
class MomentReader {
 public:
  explicit MomentReader(const Engine& engine) : engine_(engine) {}

  const optim::Moments& of(size_t exit, const std::string& name) {
    if (exit_ != exit) moments_ = engine_.optimizer().moments(exit - engine_.stage().first_exit);
    exit_ = exit;
    return moments_.at(name);
  }

 private:
  const Engine& engine_;
  std::optional<size_t> exit_;
  std::map<std::string, optim::Moments> moments_;
};

TensorSource moment_source(const Job& job, const Engine& engine, const ExitTensor& tensor, const char* suffix,
                           const std::shared_ptr<MomentReader>& reader) {
  const bool first = suffix == kFirstMoment;
  return {tensor.name + suffix, tensor.shape.sizes, [&job, &engine, tensor, first, reader] {
            at::Tensor moment;
            if (is_own(job, engine, tensor)) {
              const auto& moments = reader->of(tensor.exit, tensor.name);
              moment = first ? moments.first : moments.second;
            }
            return engine.ranks() ? gather_to_first(job, *engine.ranks(), tensor, moment) : moment;
          }};
}

void check_tensor(const checkpoint::TensorFiles& files, const std::string& name,
                  const model::TensorShape& shape) {
  if (!files.contains(name)) throw UserError("the checkpoint has no tensor {}", name);
  if (files.at(name).shape != shape.sizes)
    throw UserError("the checkpoint's tensor {} has another shape than the exit's", name);
}

}  // namespace

checkpoint::TrainingTensors training_tensors(const Job& job, Engine& engine) {
  checkpoint::TrainingTensors tensors;
  const auto reader = std::make_shared<MomentReader>(engine);
  for (const auto& tensor : exit_tensors(job)) {
    tensors.exits.push_back(master_source(job, engine, tensor));
    for (const char* suffix : {kFirstMoment, kSecondMoment})
      tensors.optimizer.push_back(moment_source(job, engine, tensor, suffix, reader));
  }
  return tensors;
}

TensorSources model_tensors(const Job& job, Engine& engine) {
  std::map<std::string, TensorSource> trained;
  for (const auto& tensor : exit_tensors(job)) trained[tensor.name] = master_source(job, engine, tensor);
  TensorSources sources;
  for (const auto& entry : checkpoint::exit_table(job.folder.config(), job.folder.exits().exits)) {
    if (const auto found = trained.find(entry.name); found != trained.end())
      sources.push_back(found->second);
    else
      sources.push_back({entry.name, entry.shape,
                         [&job, name = entry.name] { return job.folder.exit_files().alias(name); }});
  }
  return sources;
}

void take_part(const TensorSources& sources) {
  for (const auto& source : sources) source.get();
}

void restore(const checkpoint::TrainingCheckpoint& checkpoint, const Job& job, Engine& engine) {
  const c10::AutoGradMode no_grad(false);
  const auto tensors = exit_tensors(job);
  for (const auto& tensor : tensors) {
    check_tensor(checkpoint.exits, tensor.name, tensor.shape);
    for (const char* suffix : {kFirstMoment, kSecondMoment})
      check_tensor(checkpoint.optimizer, tensor.name + suffix, tensor.shape);
  }
  if (checkpoint.exits.names().size() != tensors.size() ||
      checkpoint.optimizer.names().size() != 2 * tensors.size())
    throw UserError("the checkpoint has tensors that belong to no trained exit");

  const model::Backbone& backbone = engine.backbone();
  for (const auto& tensor : tensors) {
    if (!is_own(job, engine, tensor)) continue;
    const auto slice = backbone.ranks.own_slice(backbone.config, tensor.shape.split, tensor.shape.sizes);
    const auto read = [&](const checkpoint::TensorFiles& files, const std::string& name) {
      return files.read(name, slice, backbone.device(), at::kFloat);
    };
    parameter_of(engine, tensor.name).master.detach().copy_(read(checkpoint.exits, tensor.name));
    engine.optimizer().set_moments(tensor.exit - engine.stage().first_exit, tensor.name,
                                   {.first = read(checkpoint.optimizer, tensor.name + kFirstMoment),
                                    .second = read(checkpoint.optimizer, tensor.name + kSecondMoment)});
  }
}

}  // namespace ee::train
