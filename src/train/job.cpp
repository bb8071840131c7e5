#include "ee/train/job.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "ee/base/cores.h"
#include "ee/base/file.h"
#include "ee/base/text.h"
#include "ee/comm/device.h"
#include "ee/data/documents.h"
#include "ee/tokenizer/ids_only.h"
#include "ee/train/fit.h"
#include "turns.h"

namespace ee::train {
namespace fs = std::filesystem;
using base::UserError;

namespace {

// "out/" and "out" are the same output; its companions are "out.cache", "out.checkpoints", "out.logs".
void fill_in(config::TuneOptions& options, int64_t processes_here) {
  const auto strip = [](const std::string& path) {
    const auto normal = fs::path(path).lexically_normal();
    return (normal.has_filename() ? normal : normal.parent_path()).string();
  };
  const int64_t cores = base::cores_for_each(processes_here);
  options.output = strip(options.output);
  if (options.data.cache.empty()) options.data.cache = options.output + ".cache";
  if (options.checkpoint.directory.empty()) options.checkpoint.directory = options.output + ".checkpoints";
  if (options.logging.directory.empty()) options.logging.directory = options.output + ".logs";
  if (options.threads == 0) options.threads = cores;
  if (options.data.threads == 0) options.data.threads = cores;
}

// Where it would be written is known to the processes of the first machine, to which the one that writes
// belongs; another machine may not even have those folders.
void check_environment(const config::TuneOptions& options, const checkpoint::ModelFolder& folder,
                       const comm::LaunchInfo& launch) {
  if (fs::exists(fs::symlink_status(options.output)))
    throw UserError("output {} exists already; remove it or choose another name", options.output);
  if (launch.rank == launch.local_rank) {
    base::check_new_output(options.output);
    base::check_output_folder(options.checkpoint.directory);
    base::check_output_folder(options.logging.directory);
  }
  const config::TextLimit limit = config::text_limit(folder.config());
  if (options.batch.sequence_length > limit.tokens)
    throw UserError("batch.sequence_length is {}, but the model in {} has {} positions ({})",
                    options.batch.sequence_length, folder.path().string(), limit.tokens, limit.reason);
}

int64_t document_separator(const tokenizer::Tokenizer& tokenizer, const checkpoint::ModelFolder& folder) {
  if (tokenizer.eos()) return *tokenizer.eos();
  if (!folder.config().eos_tokens.empty()) return folder.config().eos_tokens.front();
  throw UserError(
      "neither the tokenizer nor config.json in {} names an end-of-text token (eos_token_id), which "
      "separates documents",
      folder.path().string());
}

std::shared_ptr<const data::Corpus> open_text(const std::vector<fs::path>& files, const char* option,
                                              const tokenizer::Tokenizer& tokenizer,
                                              const config::TuneOptions& options) {
  auto reported = std::chrono::steady_clock::now();
  const auto progress = [&](int64_t done, int64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (done < total && now - reported < std::chrono::seconds(2)) return;
    reported = now;
    spdlog::info("tokenized {} of {} of {}", base::format_bytes(static_cast<double>(done)),
                 base::format_bytes(static_cast<double>(total)), option);
  };
  return std::make_shared<data::Corpus>(data::open_corpus(files, tokenizer,
                                                          {.cache = options.data.cache,
                                                           .threads = static_cast<int>(options.data.threads),
                                                           .progress = progress}));
}

int64_t count_steps(const config::TuneOptions& options, const data::BatchSource& training) {
  const int64_t batch = options.batch.global_batch;
  if (options.steps > 0) return options.steps;
  if (options.tokens > 0) {
    const int64_t tokens_per_step = batch * options.batch.sequence_length;
    return (options.tokens + tokens_per_step - 1) / tokens_per_step;
  }
  const double samples = options.epochs * static_cast<double>(training.sequences().size());
  return std::max<int64_t>(1, std::llround(std::ceil(samples / static_cast<double>(batch))));
}

// "cuda" means a GPU of its own for each process of a machine.
std::string own_device(const std::string& device, const comm::LaunchInfo& launch) {
  return device == "cuda" && launch.world_size > 1 ? fmt::format("cuda:{}", launch.local_rank) : device;
}

void check_grid(const parallel::GridSizes& grid, const config::TuneOptions& options,
                const config::ModelConfig& model, const std::vector<config::ExitSpec>& exits) {
  parallel::check_tensor_split(model, grid.tensor,
                               options.parallel.sequence ? options.batch.sequence_length : 0);
  const int64_t micro_batches = options.batch.global_batch / options.batch.micro_batch;
  if (micro_batches % grid.data != 0)
    throw UserError(
        "{} data-parallel replicas cannot share the {} micro-batches of a step evenly (batch.global_batch {} "
        "/ "
        "batch.micro_batch {})",
        grid.data, micro_batches, options.batch.global_batch, options.batch.micro_batch);
  plan_run(model, exits, options, /*loaded_layers=*/0);
}

void check_exit_inputs(const config::TuneOptions& options) {
  if (options.data.exit_inputs && options.train.backbone())
    throw UserError(
        "data.exit_inputs keeps what a frozen backbone computes, but train.mode is all; set it to false");
}

void check_hift(const config::HiftOptions& options, const config::ModelConfig& model) {
  if (options.groups > Turns::units(model.layers))
    throw UserError("train.hift.groups is {}, but the embedding, {} layers and the head make only {} groups",
                    options.groups, model.layers, Turns::units(model.layers));
}

// Samples of the training text that the run looks at, from the first one on.
int64_t samples_to_read(const config::TuneOptions& options, const data::BatchSource& training,
                        int64_t steps) {
  const int64_t samples = steps * options.batch.global_batch;
  if (options.exits.init != config::ExitStart::fit) return samples;
  return std::max(samples, fit_samples(training, options.exits.fit_tokens));
}

}  // namespace

void check_learned(const data::BatchSource& source, int64_t samples, std::string_view what) {
  if (source.first_learned(0, samples)) return;
  const auto& sequences = source.sequences();
  throw UserError(
      "{}: there is nothing to learn in the {} sequences of {} tokens that are read of it; every token that "
      "they "
      "predict belongs to a prompt (\"prompt_tokens\"). Prompts are longer than batch.sequence_length, and "
      "answers "
      "lie behind the sequences that are read, or at the end of the text where they do not fill one; give "
      "more "
      "text or steps, cut the prompts, or change batch.sequence_length",
      what, std::min(samples, sequences.size()), sequences.sequence_length());
}

parallel::GridSizes grid_sizes(const config::ParallelOptions& options, int64_t processes) {
  const int64_t copy = options.tensor * options.pipeline;  // processes that hold one model together
  const int64_t data = options.data > 0 ? options.data : std::max<int64_t>(1, processes / copy);
  if (copy * data != processes)
    throw UserError(
        "parallel.tensor {} x parallel.pipeline {} x parallel.data {} are {} processes, but {} {} running; "
        "start "
        "{} (torchrun, srun, mpirun, or ee-tune --spawn N), or change the sizes",
        options.tensor, options.pipeline, data, copy * data, processes, processes == 1 ? "is" : "are",
        copy * data);
  return {.tensor = options.tensor, .pipeline = options.pipeline, .data = data};
}

double Job::element_bytes() const {
  const auto dtype = checkpoint::compute_dtype(folder, options.model.precision, at::Device(device));
  return static_cast<double>(c10::elementSize(dtype));
}

int64_t Job::depth() const { return run_depth(folder.config(), exits, options); }

std::vector<std::string> Job::loss_names() const {
  std::vector<std::string> names;
  for (const auto& spec : exits) names.push_back(std::to_string(spec.layer));
  if (options.train.backbone()) names.emplace_back("final");
  return names;
}

int64_t Job::tokens_per_step() const { return options.batch.global_batch * options.batch.sequence_length; }

std::vector<config::ExitSpec> select_exits(const config::ExitsConfig& available,
                                           const config::ExitsOptions& options,
                                           const config::ModelConfig& model, bool backbone) {
  std::set<int64_t> wanted(options.train.begin(), options.train.end());
  std::vector<std::string> problems, layers;
  std::vector<config::ExitSpec> selected;
  for (const auto& spec : available.exits) {
    layers.push_back(std::to_string(spec.layer));
    if (!options.train.empty() && wanted.erase(spec.layer) == 0) continue;
    if (!backbone && exits::parameter_count(model, spec) == 0)
      problems.push_back(fmt::format(
          "the exit at layer {} has no parameters of its own, nothing can be trained", spec.layer));
    selected.push_back(spec);
  }
  if (!options.train.empty())
    for (const int64_t layer : wanted)
      problems.push_back(fmt::format("exits.train names layer {}, which has no exit", layer));
  for (const auto& override : options.overrides) {
    const auto spec = std::find_if(selected.begin(), selected.end(),
                                   [&](const auto& exit) { return exit.layer == override.layer; });
    if (spec == selected.end()) {
      problems.push_back(fmt::format("exits.overrides names layer {}, which is not trained", override.layer));
      continue;
    }
    spec->weight = override.weight.value_or(spec->weight);
    spec->temperature = override.temperature.value_or(spec->temperature);
  }
  if (!problems.empty())
    throw UserError("{} (the model has exits at layers {})", base::join(problems, "; "),
                    base::join(layers, ", "));
  return selected;
}

namespace {

struct Texts {
  std::shared_ptr<const data::Corpus> corpus;  // of data.train
  data::BatchSource training;
  std::optional<data::BatchSource> validation;
};

// `separator`: the token behind each document.
Texts open_texts(const config::TuneOptions& options, const tokenizer::Tokenizer& tokenizer,
                 int64_t separator) {
  const auto seed = static_cast<uint64_t>(options.seed);
  const auto source = [&](const auto& corpus, std::vector<data::Segment> segments, bool shuffle,
                          const char* what) {
    return data::BatchSource({corpus, std::move(segments), options.batch.sequence_length, separator}, shuffle,
                             seed, what);
  };
  // Both before any is tokenized: what cannot be read is said at once.
  const bool separate = !options.data.validation.empty();
  const auto train_files = data::find_text_files(options.data.train, "data.train");
  const auto held_out_files =
      separate ? data::find_text_files(options.data.validation, "data.validation") : std::vector<fs::path>{};
  const auto corpus = open_text(train_files, "data.train", tokenizer, options);
  auto split = data::split_documents(*corpus, separate ? 0.0 : options.data.validation_fraction, seed);

  const char* const held_out_text =
      separate ? "data.validation" : "the part of data.train that data.validation_fraction holds out";
  std::optional<data::BatchSource> validation;
  if (separate) {
    const auto held_out = open_text(held_out_files, "data.validation", tokenizer, options);
    validation = source(held_out, data::whole_documents(*held_out), true, held_out_text);
  } else if (!split.validation.empty()) {
    validation = source(corpus, std::move(split.validation), true, held_out_text);
  }
  if (validation) check_learned(*validation, options.evaluation.sequences, held_out_text);
  return {.corpus = corpus,
          .training = source(corpus, std::move(split.train), options.data.shuffle, "data.train"),
          .validation = std::move(validation)};
}

}  // namespace

Job prepare_job(config::TuneOptions options, const comm::LaunchInfo& launch) {
  fill_in(options, launch.local_world_size);
  const auto grid = grid_sizes(options.parallel, launch.world_size);
  auto folder = checkpoint::ModelFolder::open(options.model.path, options.model.verify
                                                                      ? checkpoint::Check::unless_remembered
                                                                      : checkpoint::Check::never);
  check_environment(options, folder, launch);
  const std::string device = own_device(options.device, launch);
  auto selected = select_exits(folder.exits(), options.exits, folder.config(), options.train.backbone());
  check_hift(options.train.hift, folder.config());
  check_exit_inputs(options);
  check_grid(grid, options, folder.config(), selected);  // before the text is read
  const auto tokenizer =
      tokenizer::load_data_tokenizer(folder.path(), folder.config().vocab_size, folder.config().eos_tokens);
  Texts texts = open_texts(options, *tokenizer, document_separator(*tokenizer, folder));
  if (options.exits.init == config::ExitStart::fit)
    check_fit(selected, texts.training, options.exits.fit_tokens);
  const int64_t steps = count_steps(options, texts.training);
  check_learned(texts.training, samples_to_read(options, texts.training, steps), "data.train");
  Job job{.options = std::move(options),
          .folder = std::move(folder),
          .exits = std::move(selected),
          .corpus = std::move(texts.corpus),
          .training = std::move(texts.training),
          .validation = std::move(texts.validation),
          .steps = steps,
          .device = device,
          .grid = grid,
          .stages = {}};
  job.stages = plan_run(job.folder.config(), job.exits, job.options, job.loaded_layers());
  return job;
}

}  // namespace ee::train
