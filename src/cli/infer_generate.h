// The parts of `ee-infer generate`: its options, the prompt, what it shows, and its work on several
// processes.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ee/comm/launch.h"
#include "ee/infer/generate.h"
#include "ee/parallel/rank_grid.h"
#include "infer_model.h"

namespace ee::cli {

struct GenerateArguments {
  ModelArguments model;
  std::optional<std::string> prompt, prompt_file, system;
  bool chat = false, show_exits = false, json = false, probe = false;
  int64_t seed = 0;
  std::optional<double> threshold, quality;
  std::string policy = "confidence";
  infer::GenerateOptions generate;
  std::optional<int64_t> spawn;
  parallel::GridSizes grid;  // of the processes that generate together

  // False when --help has been printed. `processes`: that were started, without --spawn.
  bool parse(const std::vector<std::string>& args, int64_t processes);
};

// Finds the rules by which tokens leave: of --quality in the model's folder. Reads no weights. UserError: no
// such level, no gates.
void choose_rules(GenerateArguments& arguments);

// UserError: the prompt would have to be typed into a terminal.
void check_input(const GenerateArguments& arguments);

// The text to continue. UserError: as check_input(); not UTF-8.
std::string read_prompt(const GenerateArguments& arguments);

// Its tokens, with --chat those of the conversation. UserError: no chat template.
std::vector<int64_t> encode_prompt(const GenerateArguments& arguments, const std::string& text,
                                   const tokenizer::Tokenizer& tokenizer);

// The same, checked: UserError also as infer::check_generate() says. Reads no weights.
std::vector<int64_t> checked_prompt(const GenerateArguments& arguments, const std::string& text,
                                    const config::ModelConfig& config, const tokenizer::Tokenizer& tokenizer);

// Runs `generate` and prints what it makes as the options want it, also if an error ended it; returns its
// error, for the end of the program.
using Generate = std::function<infer::Generation(const infer::GenerateListener& listener)>;
std::string show(const GenerateArguments& arguments, const infer::Model& model,
                 const tokenizer::Tokenizer& tokenizer, const Generate& generate);

// This process's part in a run of several; rank 0 reads the prompt and prints. Returns the exit code.
int generate_together(const GenerateArguments& arguments, const comm::LaunchInfo& launch);

}  // namespace ee::cli
