#include "ee/train/attach_fitted.h"

#include <algorithm>
#include <filesystem>

#include "ee/base/file.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/data/documents.h"
#include "ee/train/job.h"
#include "load_engine.h"

namespace ee::train {
namespace fs = std::filesystem;

namespace {

bool cpu_computes_in_bf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

// A run of no steps.
Job fit_job(const fs::path& folder, const fs::path& cache, const checkpoint::AttachOptions& options,
            const FitText& text) {
  config::TuneOptions tune;
  tune.model.path = folder.string();
  tune.model.verify = false;  // it was made just now
  tune.model.precision =
      text.precision.value_or(cpu_computes_in_bf16() ? config::Precision::bf16 : config::Precision::stored);
  tune.output = options.output.string();
  tune.data.train = text.paths;
  tune.data.validation_fraction = 0;
  tune.data.cache = cache.string();
  tune.exits.init = config::ExitStart::fit;
  tune.exits.fit_tokens = text.tokens;
  for (const auto& spec : options.exits)
    if (spec.init == config::InitKind::fit) tune.exits.train.push_back(spec.layer);
  const int64_t positions = config::text_limit(checkpoint::read_source_config(options.source)).tokens;
  tune.batch.sequence_length = std::min(tune.batch.sequence_length, positions);
  tune.steps = 1;
  Job job = prepare_job(tune);
  job.steps = 0;
  return job;
}

}  // namespace

Fit attach_fitted(const checkpoint::AttachOptions& options, const FitText& text) {
  checkpoint::check_attach(options);
  data::find_text_files(text.paths, "--fit");  // a GGUF file takes minutes before its text is read
  const base::AtomicDirectory passing(options.output.string() +
                                      ".unfitted");  // is never committed: goes again
  checkpoint::AttachOptions unfitted = options;
  unfitted.output = passing.path() / "model";
  checkpoint::attach_exits(unfitted);
  const Job job = fit_job(unfitted.output, passing.path() / "tokens", options, text);
  Engine engine = load_engine(job, nullptr);
  const auto fit = fit_exits(engine, job.exits, job.training, text.tokens, job.options.batch.micro_batch,
                             [] { return false; });
  write_model(job, engine);
  return *fit;
}

}  // namespace ee::train
