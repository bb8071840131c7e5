#include "cli_options.h"
#include "tune_command.h"

int main(int argc, char** argv) {
  return ee::cli::run_commands(
      {.name = "ee-tune",
       .summary = "Tunes the early exits of a pretrained model; its backbone stays frozen.",
       .commands = {{"", "tune as a configuration file says", ee::cli::run_tune},
                    {"prepare", "make training data: the model's own answers to prompts",
                     ee::cli::run_tune_prepare},
                    {"calibrate", "fit temperatures and thresholds on held-out text", ee::cli::run_calibrate},
                    {"reference", "print every option of the configuration file",
                     ee::cli::run_tune_reference}}},
      argc, argv);
}
