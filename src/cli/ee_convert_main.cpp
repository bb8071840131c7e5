#include "cli_options.h"
#include "convert_commands.h"

int main(int argc, char** argv) {
  using namespace ee::cli;
  const Program program{
      .name = "ee-convert",
      .summary = "Gives pretrained models early exits, and looks at models that have some.",
      .commands = {
          {"attach", "pretrained model (folder or GGUF file) -> model folder with exits", convert_attach},
          {"create", "random weights for a model that is to be trained from the beginning", convert_create},
          {"move", "exits before a layer <-> after the layer in front of it", convert_move},
          {"inspect", "what a model folder holds", convert_inspect},
          {"verify", "checks every tensor, the tokenizer and a forward pass", convert_verify}}};
  return run_commands(program, argc, argv);
}
