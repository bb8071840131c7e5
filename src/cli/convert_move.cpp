#include "cli_options.h"
#include "convert_commands.h"
#include "ee/checkpoint/attach.h"
#include "ee/checkpoint/model_folder.h"
#include "infer_model.h"

namespace ee::cli {

int convert_move(const std::vector<std::string>& args) {
  std::string model, position, output;
  bool no_verify = false;
  CommandLine line(
      "ee-convert move --model DIR --position before|after --output DIR",
      "Writes the same model with every exit before its layer, or after it: \"before layer L\" reads "
      "what \"after layer L-1\" reads. Exact for the kinds embedding, norm and layer; an mlp exit "
      "cannot be moved.");
  line.value("model", "DIR", model, "model folder with exits")
      .value("position", "POSITION", position, "before or after")
      .value("output", "DIR", output, "folder to create")
      .required("model")
      .required("position")
      .required("output");
  declare_no_verify(line, no_verify);
  if (!line.parse(args)) return 0;
  checkpoint::move_exits(model, config::parse_exit_position(position), output,
                         no_verify ? checkpoint::Check::never : checkpoint::Check::unless_remembered);
  fmt::print("{}:\n", output);
  const auto moved = checkpoint::ModelFolder::open(output, checkpoint::Check::never);
  for (const auto& spec : moved.exits().exits)
    fmt::print("  {} exit {} layer {}\n", config::to_string(spec.kind), position, spec.layer);
  return 0;
}

}  // namespace ee::cli
