#include "cli_options.h"
#include "convert_commands.h"
#include "ee/base/error.h"
#include "ee/checkpoint/create.h"

namespace ee::cli {

int convert_create(const std::vector<std::string>& args) {
  std::string config, tokenizer, output;
  int64_t seed = 1234;
  CommandLine line(
      "ee-convert create --config FILE --tokenizer DIR --output DIR [--seed N]",
      "Writes a model with random weights, to be trained from the beginning (ee-convert attach, then "
      "ee-tune with \"train\": \"all\").");
  line.value("config", "FILE", config, "structure of the model, in the format of Hugging Face's config.json")
      .value("tokenizer", "DIR", tokenizer, "model folder whose tokenizer is copied")
      .value("output", "DIR", output, "folder to create")
      .value("seed", "N", seed, "of the weights")
      .required("config")
      .required("tokenizer")
      .required("output");
  if (!line.parse(args)) return 0;
  if (seed < 0) throw base::UserError("option --seed: expected 0 or more, got {}", seed);
  checkpoint::create_model(
      {.config = config, .tokenizer = tokenizer, .output = output, .seed = static_cast<uint64_t>(seed)});
  fmt::print("{}: random weights, no exits\n", output);
  return 0;
}

}  // namespace ee::cli
