#include <unistd.h>

#include "ee/base/error.h"
#include "ee/eval/evaluate.h"
#include "infer_commands.h"
#include "infer_model.h"
#include "processes.h"

namespace ee::cli {

int run_eval(const std::vector<std::string>& args) {
  ModelArguments arguments;
  eval::EvalData data;
  std::string path;
  bool json = false;
  CommandLine line(
      "ee-infer eval --model DIR --data PATH [options]",
      "Loss, perplexity and agreement with the final layer of every exit, and which share of the tokens "
      "would leave there at several thresholds.");
  arguments.declare(line);
  line.value("data", "PATH", path,
             "file of text or of records with \"text\" or \"tokens\", or folder of both")
      .required("data");
  line.value("sequences", "N", data.sequences, "at most so many sequences, from the beginning");
  line.value("sequence-length", "N", data.sequence_length, "tokens predicted in each");
  line.flag("json", json, "print one JSON object instead of a table");
  if (!is_single_process("ee-infer eval")) {
    return base::kExitUserError;
  }
  if (!line.parse(args)) {
    return 0;
  }
  data.path = path;
  const auto config = config::read_model_config(arguments.folder);
  const auto tokenizer = infer::load_data_tokenizer(arguments.folder, config);
  const auto sequences = eval::read_sequences(data, config, *tokenizer);
  const infer::Model model = arguments.load();
  const bool show_progress = ::isatty(STDERR_FILENO) != 0;
  const eval::Evaluation evaluation = eval::evaluate(model, sequences, [&](int64_t done) {
    if (show_progress) {
      fmt::print(stderr, "\r{} of {} sequences{}", done, sequences.size(),
                 done == static_cast<int64_t>(sequences.size()) ? "\n" : "");
    }
  });
  fmt::print("{}{}", json ? eval::to_json(evaluation) : eval::to_table(evaluation), json ? "\n" : "");
  return 0;
}

}  // namespace ee::cli
