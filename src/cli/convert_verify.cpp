#include "cli_options.h"
#include "convert_commands.h"
#include "ee/checkpoint/verify.h"

namespace ee::cli {

int convert_verify(const std::vector<std::string>& args) {
  std::string folder;
  CommandLine line(
      "ee-convert verify DIR",
      "Checks a model folder: names, shapes and dtypes of all tensors, fingerprint, that every value is "
      "finite, the tokenizer, and a forward pass through all layers and exits. Ends with 2 at the "
      "first problem.");
  line.positional("DIR", folder, "model folder, with or without exits");
  if (!line.parse(args)) return 0;
  checkpoint::verify_model_folder(folder, [](const std::string& passed) { fmt::print("OK  {}\n", passed); });
  return 0;
}

}  // namespace ee::cli
