#include "cli_options.h"
#include "convert_commands.h"
#include "ee/checkpoint/verify.h"

namespace ee::cli {

int convert_verify(const std::vector<std::string>& args) {
  std::string folder;
  bool add = false;
  CommandLine line(
      "ee-convert verify DIR [--add-checksums]",
      "Checks a model folder: names, shapes and dtypes of all tensors, the checksum of every byte of them, "
      "that every value is finite, the tokenizer, and a forward pass through all layers and exits. Ends with "
      "2 at the first problem.");
  line.positional("DIR", folder, "model folder, with or without exits");
  line.flag("add-checksums", add,
            "give a folder that was written before there were checksums its own, when all else passes");
  if (!line.parse(args)) return 0;
  const auto ok = [](const std::string& passed) { fmt::print("OK  {}\n", passed); };
  add ? checkpoint::add_checksums(folder, ok) : checkpoint::verify_model_folder(folder, ok);
  return 0;
}

}  // namespace ee::cli
