// ee-tune prepare --self: the model's own answers to prompts, as text to tune its exits on.
#include <spdlog/spdlog.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>

#include "cli_options.h"
#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/hash.h"
#include "ee/base/text.h"
#include "ee/checkpoint/attach.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/data/documents.h"
#include "ee/data/packing.h"
#include "ee/format/resumable_lines.h"
#include "ee/infer/batch_generate.h"
#include "ee/tokenizer/chat.h"
#include "infer_model.h"
#include "processes.h"
#include "tune_command.h"

namespace ee::cli {

namespace fs = std::filesystem;
using base::UserError;
using Clock = std::chrono::steady_clock;

namespace {

struct PrepareArguments {
  bool self = false, no_verify = false;
  std::string model, prompts, output, precision = "stored";
  int64_t seed = 1234, threads = 0;
  infer::BatchOptions batch;

  bool parse(const std::vector<std::string>& args) {
    CommandLine line(
        "ee-tune prepare --self --model DIR --prompts FILE --output FILE.jsonl [options]",
        "Writes the model's own answers to prompts (in its chat template, if it has one), as text "
        "for data.train: exits are to agree with what this model says. A run that was "
        "interrupted goes on when it is started again.");
    line.flag("self", self, "the data is what the model itself says");
    line.value("model", "DIR", model, "model folder, with or without exits, or a GGUF file")
        .required("model");
    line.value("prompts", "FILE", prompts, "one prompt a line, or records (.jsonl, .json) with \"prompt\"")
        .required("prompts");
    line.value("output", "FILE", output, "JSON Lines to write; must not exist").required("output");
    line.value("max-new-tokens", "N", batch.max_new_tokens, "the longest answer");
    line.value("temperature", "T", batch.sampling.temperature, "of sampling; 0: the most probable token");
    line.value("top-k", "K", batch.sampling.top_k, "sample from the K most probable tokens; 0: all");
    line.value("top-p", "P", batch.sampling.top_p,
               "sample from the fewest tokens that together have this probability");
    line.value("min-p", "P", batch.sampling.min_p, "no token below this fraction of the largest probability");
    line.value("seed", "N", seed, "of sampling; each prompt draws from a seed of its own");
    line.value("batch", "N", batch.batch, "answers that are written at the same time");
    line.value("precision", "stored|f32|bf16", precision, "dtype of weights and computation");
    line.value("threads", "N", threads, "threads that compute, 0: one per core");
    declare_no_verify(line, no_verify);
    if (!line.parse(args)) return false;
    if (!self) throw UserError("ee-tune prepare makes one kind of data so far; say so with --self");
    infer::check_batch_options(batch);
    set_threads(threads);
    return true;
  }
};

// The model without its weights; exits, should there be any, are checked with the backbone and not loaded.
struct Source {
  std::unique_ptr<base::AtomicDirectory> passing;  // a GGUF file's folder; never committed: goes again
  checkpoint::ModelFolder folder;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  std::string fingerprint;
};

Source open_source(const PrepareArguments& arguments) {
  if (!fs::exists(arguments.model)) throw UserError("option --model: there is no {}", arguments.model);
  fs::path path = arguments.model;
  std::unique_ptr<base::AtomicDirectory> passing;
  if (!fs::is_directory(path)) {
    passing = std::make_unique<base::AtomicDirectory>(arguments.output + ".model");
    checkpoint::write_gguf_model(path, passing->path());
    path = passing->path();
  }
  auto folder = checkpoint::ModelFolder::open(
      path, arguments.no_verify ? checkpoint::Check::never : checkpoint::Check::unless_remembered);
  auto tokenizer = infer::load_tokenizer(path, folder.config());
  auto fingerprint = checkpoint::fingerprint(folder.backbone_files());
  return {.passing = std::move(passing),
          .folder = std::move(folder),
          .tokenizer = std::move(tokenizer),
          .fingerprint = std::move(fingerprint)};
}

std::vector<infer::BatchRequest> make_requests(const PrepareArguments& arguments,
                                               const std::vector<std::string>& prompts,
                                               const Source& source) {
  std::vector<infer::BatchRequest> requests;
  const tokenizer::ChatTemplate& chat = source.tokenizer->chat_template();
  for (const std::string& prompt : prompts) {
    requests.push_back({.prompt = chat.source.empty() ? infer::encode_prompt(*source.tokenizer, prompt)
                                                      : source.tokenizer->encode(
                                                            tokenizer::render_chat(chat, {{"user", prompt}})),
                        .seed = data::mix_seed(static_cast<uint64_t>(arguments.seed), requests.size()),
                        .name = fmt::format("{}, prompt {}", arguments.prompts, requests.size() + 1)});
    try {
      infer::check_generate(source.folder.config(), requests.back().prompt,
                            {.max_new_tokens = arguments.batch.max_new_tokens});
    } catch (const UserError& error) {
      throw UserError("{}: {}", requests.back().name, error.what());
    }
  }
  return requests;
}

// All that the answers depend on.
nlohmann::json made_by(const PrepareArguments& arguments, const std::vector<std::string>& prompts,
                       const Source& source) {
  const std::string all = base::join(prompts, "\n");
  const infer::SamplingOptions& sampling = arguments.batch.sampling;
  return {
      {"model", source.fingerprint},
      {"tokenizer", source.tokenizer->fingerprint()},
      {"chat_template", base::hash_bytes(std::as_bytes(std::span(source.tokenizer->chat_template().source)))},
      {"prompts", base::hash_bytes(std::as_bytes(std::span(all)))},
      {"precision", arguments.precision},
      {"max_new_tokens", arguments.batch.max_new_tokens},
      {"temperature", sampling.temperature},
      {"top_k", sampling.top_k},
      {"top_p", sampling.top_p},
      {"min_p", sampling.min_p},
      {"seed", arguments.seed}};
}

// "tokens" and "prompt_tokens" are exact; "text" and "answer" are for people and other tools.
nlohmann::json answer_line(const std::string& prompt, const infer::BatchRequest& request,
                           const infer::BatchAnswer& answer, const tokenizer::Tokenizer& tokenizer) {
  std::vector<int64_t> tokens = request.prompt;
  tokens.insert(tokens.end(), answer.tokens.begin(), answer.tokens.end());
  return {{"prompt", prompt},
          {"answer", tokenizer.decode(answer.tokens)},
          {"text", tokenizer.decode(tokens, /*keep_special=*/true)},
          {"tokens", tokens},
          {"prompt_tokens", request.prompt.size()},
          {"finish", infer::to_string(answer.finish)}};
}

// Counts answers and says now and then how far it is.
class Progress {
 public:
  explicit Progress(size_t total) : total_(total) {}

  void add(size_t done, const infer::BatchAnswer& answer) {
    ++answers_;
    tokens_ += answer.tokens.size();
    ended_ += answer.finish == infer::FinishReason::eos;
    if (Clock::now() - reported_ < std::chrono::seconds(10)) return;
    reported_ = Clock::now();
    spdlog::info("{} of {} answers  {:.1f} tokens/s", done, total_, rate());
  }
  std::string summary() const {
    return fmt::format("{} answers, {} of them ended by the model, {} tokens, {:.1f} tokens/s", answers_,
                       ended_, tokens_, rate());
  }

 private:
  double rate() const {
    return static_cast<double>(tokens_) / std::chrono::duration<double>(Clock::now() - start_).count();
  }

  size_t total_, answers_ = 0, tokens_ = 0, ended_ = 0;
  Clock::time_point start_ = Clock::now(), reported_ = start_;
};

// The answers that `lines` does not have yet. They end in any order and are written in that of the prompts.
void write_answers(const PrepareArguments& arguments, const std::vector<std::string>& prompts,
                   const std::vector<infer::BatchRequest>& requests, const Source& source,
                   format::ResumableLines& lines) {
  const auto before = static_cast<size_t>(lines.lines());
  if (before > 0) spdlog::info("{} of {} answers are there already", before, prompts.size());
  if (before == requests.size()) return;
  const model::Backbone backbone =
      checkpoint::load_backbone(source.folder, {.precision = parse_precision(arguments.precision)});
  Progress progress(prompts.size());
  std::map<size_t, infer::BatchAnswer> waiting;
  const auto ends = infer::end_tokens(backbone.config, *source.tokenizer);
  infer::generate_batch(backbone, std::span(requests).subspan(before), ends, arguments.batch,
                        [&](size_t request, infer::BatchAnswer answer) {
                          progress.add(static_cast<size_t>(lines.lines()) + waiting.size() + 1, answer);
                          waiting[before + request] = std::move(answer);
                          for (auto first = waiting.begin();
                               first != waiting.end() && first->first == static_cast<size_t>(lines.lines());
                               first = waiting.erase(first)) {
                            lines.write(answer_line(prompts[first->first], requests[first->first],
                                                    first->second, *source.tokenizer));
                          }
                        });
  spdlog::info("{}", progress.summary());
}

}  // namespace

int run_tune_prepare(const std::vector<std::string>& args) {
  PrepareArguments arguments;
  if (!is_single_process("ee-tune prepare")) return base::kExitUserError;
  if (!arguments.parse(args)) return 0;
  spdlog::set_pattern("%H:%M:%S  %v");
  parse_precision(arguments.precision);
  base::check_new_output(arguments.output);
  base::check_output_file(arguments.output);  // its folder must be there
  const std::vector<std::string> prompts = data::read_prompts(arguments.prompts);
  const Source source = open_source(arguments);
  const auto requests = make_requests(arguments, prompts, source);
  format::ResumableLines lines(arguments.output, made_by(arguments, prompts, source));
  write_answers(arguments, prompts, requests, source, lines);
  lines.finish();
  spdlog::info("wrote {}", arguments.output);
  return 0;
}

}  // namespace ee::cli
