#include "exit_inputs.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <set>
#include <span>

#include "ee/base/error.h"
#include "ee/base/hash.h"
#include "ee/base/text.h"
#include "ee/train/fit.h"
#include "teacher_walk.h"

namespace ee::train {
namespace fs = std::filesystem;

namespace {

bool keeps_final(const Job& job) {
  return job.options.exits.init == config::ExitStart::fit || job.options.exits.loss.needs_teacher();
}

bool reads_post_attention(const config::ExitSpec& spec) { return spec.kind == config::ExitKind::mlp; }

int64_t record_bytes(const Job& job) {
  return job.options.batch.sequence_length * job.folder.config().hidden_size *
         static_cast<int64_t>(job.element_bytes());
}

// All that the streams depend on.
std::string content_hash(const Job& job) {
  base::Hasher hasher;
  hasher.update(fmt::format("{} {} {} {}", job.folder.backbone_digest(),
                            config::write_model_config(job.folder.config()), job.element_bytes(),
                            job.training.sequences().fingerprint()));
  return hasher.digest();
}

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

}  // namespace

std::vector<int64_t> visited_sequences(const Job& job) {
  const auto& options = job.options;
  int64_t samples = job.steps * options.batch.global_batch;
  if (options.exits.init == config::ExitStart::fit)
    samples = std::max(samples, fit_samples(job.training, options.exits.fit_tokens));
  std::set<int64_t> visited;
  const auto all = static_cast<size_t>(job.training.sequences().size());
  for (int64_t sample = 0; sample < samples && visited.size() < all; ++sample)
    visited.insert(job.training.sequence_index(sample));
  return {visited.begin(), visited.end()};
}

double exit_input_bytes(const Job& job) {
  return static_cast<double>((std::ssize(job.exits) + (keeps_final(job) ? 1 : 0)) *
                             std::ssize(visited_sequences(job)) * record_bytes(job));
}

ExitInputs::ExitInputs(const Job& job)
    : folder_(job.options.data.cache),
      record_bytes_(static_cast<double>(record_bytes(job))),
      source_(job.training),
      specs_(job.exits),
      keeps_final_(keeps_final(job)) {
  const std::string hash = content_hash(job);
  const auto open = [&](const std::string& what) {
    files_.emplace_back(folder_ / fmt::format("{}.{}.states", hash, what), source_.sequences().size(),
                        record_bytes(job));
  };
  for (const auto& spec : specs_)
    open(fmt::format("{}-{}", reads_post_attention(spec) ? "post-attention" : "output", spec.depth()));
  if (keeps_final_) open(fmt::format("output-{}", job.folder.config().layers));
}

bool ExitInputs::fill(const StageView& view, const parallel::Ranks* ranks,
                      const std::vector<int64_t>& sequences, int64_t micro_batch,
                      const std::function<bool(int64_t done, int64_t of)>& go_on) {
  const std::vector<int64_t> missing = this->missing(sequences);
  if (ranks) {
    const auto counts =
        parallel::gather_numbers(ranks->all, {static_cast<double>(missing.size())}, ranks->device);
    if (counts.front() != std::vector{static_cast<double>(missing.size())})
      throw base::UserError(
          "rank {} misses the exits' inputs for {} sequences, but rank 0 for {}; data.cache must be a folder "
          "that all machines share",
          ranks->grid.rank(), missing.size(), counts.front()[0]);
  }
  check_space(missing.size());
  const c10::AutoGradMode no_grad(false);
  const auto keep = [&](const data::Batch& batch, const std::vector<exits::ExitInput>& inputs,
                        const at::Tensor& final_hidden) {
    for (size_t i = 0; i < inputs.size(); ++i)
      write(files_[view.stage.first_exit + i], batch, view.backbone.ranks.gather_tokens(inputs[i].hidden),
            view.backbone);
    if (keeps_final_ && view.stage.is_last) write(files_.back(), batch, final_hidden, view.backbone);
  };
  TeacherWalk taught(view, ranks, keep);
  const int64_t count = std::ssize(missing), replica = ranks ? ranks->data.rank() : 0,
                replicas = ranks ? ranks->data.size() : 1;
  for (int64_t first = replica * micro_batch; first < count; first += replicas * micro_batch) {
    if (!go_on(first / replicas, count / replicas)) return false;
    const auto end = std::min(first + micro_batch, count);
    const data::Batch batch = source_.of({missing.begin() + first, missing.begin() + end});
    if (keeps_final_) {
      taught.push(batch);
      continue;
    }
    std::vector<exits::ExitInput> inputs(view.exits.size());
    walk_stage(view, batch, view.stage.last_layer,
               [&](size_t exit, const exits::ExitInput& input) { inputs[exit] = input; });
    keep(batch, inputs, {});
  }
  taught.drain();
  if (ranks) ranks->all.barrier();
  return true;
}

std::vector<int64_t> ExitInputs::missing(const std::vector<int64_t>& sequences) const {
  std::vector<int64_t> missing;
  for (const int64_t sequence : sequences)
    if (!std::ranges::all_of(files_, [&](const auto& file) { return file.has(sequence); }))
      missing.push_back(sequence);
  return missing;
}

void ExitInputs::check_space(size_t sequences) const {
  const double bytes = static_cast<double>(sequences * files_.size()) * record_bytes_;
  std::error_code error;
  const auto space = fs::space(folder_, error);
  if (!error && bytes > static_cast<double>(space.available))
    throw base::UserError(
        "the exits' inputs need {} more in data.cache {}, where {} are free; free some space, choose another "
        "folder, or set data.exit_inputs to false",
        base::format_bytes(bytes), folder_.string(),
        base::format_bytes(static_cast<double>(space.available)));
}

// One tensor rank writes for all: each has the whole stream here.
void ExitInputs::write(format::RecordFile& file, const data::Batch& batch, const at::Tensor& stream,
                       const model::Backbone& backbone) {
  if (backbone.ranks.rank() != 0) return;
  const at::Tensor rows = stream.cpu().contiguous();
  for (size_t i = 0; i < batch.sequences.size(); ++i)
    file.write(batch.sequences[i], bytes_of(rows[static_cast<int64_t>(i)]));
}

at::Tensor ExitInputs::read(const format::RecordFile& file, const data::Batch& batch,
                            const model::Backbone& backbone) {
  std::vector<int64_t> sizes = batch.inputs.sizes().vec();
  sizes.push_back(backbone.config.hidden_size);
  const at::Tensor stream = at::empty(sizes, backbone.options().device(at::kCPU));
  for (size_t i = 0; i < batch.sequences.size(); ++i)
    file.read(batch.sequences[i], bytes_of(stream[static_cast<int64_t>(i)]));
  return stream.to(backbone.device());
}

exits::ExitInput ExitInputs::read(size_t exit, const data::Batch& batch,
                                  const model::Backbone& backbone) const {
  const config::ExitSpec& spec = specs_[exit];
  exits::ExitInput input{.hidden = backbone.ranks.own_tokens(read(files_[exit], batch, backbone)),
                         .mlp_input = {}};
  if (reads_post_attention(spec))
    input.mlp_input = model::rms_norm(input.hidden, backbone.layer(spec.depth()).post_attention_norm,
                                      backbone.config.rms_norm_eps);
  return input;
}

at::Tensor ExitInputs::read_final(const data::Batch& batch, const model::Backbone& backbone) const {
  EE_CHECK(keeps_final_, "the last hidden state is not kept");
  return read(files_.back(), batch, backbone);
}

}  // namespace ee::train
