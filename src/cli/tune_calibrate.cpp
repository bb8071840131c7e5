#include <unistd.h>

#include <charconv>

#include "cli_options.h"
#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/eval/calibrate.h"
#include "ee/eval/evaluate.h"
#include "infer_model.h"
#include "processes.h"
#include "tune_command.h"

namespace ee::cli {

namespace {

using base::UserError;

struct CalibrateArguments {
  ModelArguments model;
  std::vector<std::string> data;
  std::string agreement = "0.95";
  double confidence = 0.95;
  bool gate = false, report = false;
  int64_t sequences = 128, sequence_length = 256, seed = 1234;

  bool parse(const std::vector<std::string>& args) {
    CommandLine line("ee-tune calibrate --model DIR --data PATH [options]",
                     "Fits each exit's temperature and the thresholds that keep a wanted agreement with the "
                     "final layer, on "
                     "text that the exits were not tuned on, and writes them into the model's ee_config.json "
                     "for `ee-infer "
                     "--quality`.");
    line.value("model", "DIR", model.folder, "model folder with exits").required("model");
    line.values("data", "PATH", data,
                "file of text or of records with \"text\" or \"tokens\", or folder of both; repeatable")
        .required("data");
    line.value("agreement", "A,...", agreement, "wanted shares of tokens that are the final layer's");
    line.value("confidence", "P", confidence, "probability that they are reached on fresh text of this kind");
    line.flag("gate", gate,
              "also fit gates, and levels by them; a model that has gates gets new ones in any case");
    line.flag("report", report, "fit and write nothing; measure what the folder has on this text");
    line.value("sequences", "N", sequences, "at most so many, drawn from all of the text");
    line.value("sequence-length", "N", sequence_length, "tokens predicted in each");
    line.value("seed", "N", seed, "of the drawing");
    line.value("precision", "stored|f32|bf16", model.precision, "dtype of weights and computation");
    line.value("threads", "N", model.threads, "threads that compute; 0: one per core");
    declare_no_verify(line, model.no_verify);
    return line.parse(args);
  }

  eval::DrawData draw() const {
    if (sequences < 1) {
      throw UserError("option --sequences: expected at least 1, got {}", sequences);
    }
    return {.paths = data,
            .sequences = sequences,
            .sequence_length = sequence_length,
            .seed = static_cast<uint64_t>(seed)};
  }

  std::vector<double> agreements() const {
    std::vector<double> values;
    const char* at = agreement.data();
    const char* const end = at + agreement.size();
    for (;;) {
      double value = 0.0;
      const auto [next, error] = std::from_chars(at, end, value);
      if (error != std::errc() || (next != end && *next != ',') || !(value > 0.0 && value < 1.0)) {
        throw UserError("option --agreement: expected shares between 0 and 1, as 0.95,0.9, got '{}'",
                        agreement);
      }
      values.push_back(value);
      if (next == end) {
        return values;
      }
      at = next + 1;
    }
  }
};

void show_progress(int64_t done, int64_t of) {
  if (::isatty(STDERR_FILENO) != 0) {
    fmt::print(stderr, "\r{} of {} sequences{}", done, of, done == of ? "\n" : "");
  }
}

}  // namespace

int run_calibrate(const std::vector<std::string>& args) {
  CalibrateArguments arguments;
  if (!is_single_process("ee-tune calibrate")) {
    return base::kExitUserError;
  }
  if (!arguments.parse(args)) {
    return 0;
  }
  const eval::CalibrationOptions wanted{.agreements = arguments.agreements(),
                                        .confidence = arguments.confidence};
  const auto folder =
      checkpoint::ModelFolder::open(arguments.model.folder, checkpoint::Check::never);  // load() checks it
  const config::ExitsConfig exits = folder.exits();
  if (!arguments.report) {
    base::check_output_folder(arguments.model.folder);
  }
  const auto tokenizer = infer::load_data_tokenizer(arguments.model.folder, folder.config());
  const auto sequences = eval::draw_sequences(arguments.draw(), folder.config(), *tokenizer);
  if (!arguments.report) {
    eval::check_calibration(wanted, sequences.size());
  }
  infer::Model model = arguments.model.load();
  if (arguments.report) {
    fmt::print("{}", to_table(eval::measure(model, exits.quality, sequences, show_progress)));
    return 0;
  }
  eval::CalibrationOptions options = wanted;
  options.gates = arguments.gate || folder.has_gates();
  const eval::Calibration calibration = eval::calibrate(model, sequences, options, show_progress);
  checkpoint::write_calibration(folder, model.exits, calibration.quality());
  fmt::print("{}wrote {}/ee_config.json{}\n", to_table(calibration), arguments.model.folder,
             options.gates ? " and gates.safetensors" : "");
  return 0;
}

}  // namespace ee::cli
