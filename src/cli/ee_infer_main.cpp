#include "cli_options.h"
#include "infer_commands.h"

int main(int argc, char** argv) {
  return ee::cli::run_commands(
      {.name = "ee-infer",
       .summary = "Generates text with early exits, and measures them.",
       .commands = {{"", "generate text", ee::cli::run_generate},
                    {"generate", "the same: generate text", ee::cli::run_generate},
                    {"score", "log probabilities of given tokens at every exit", ee::cli::run_score},
                    {"eval", "loss and agreement of every exit on text", ee::cli::run_eval}}},
      argc, argv);
}
