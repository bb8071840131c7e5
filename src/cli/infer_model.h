// The options that every command of ee-infer has, and the model they load.
#pragma once

#include <string>

#include "cli_options.h"
#include "ee/infer/model.h"

namespace ee::cli {

config::Precision parse_precision(const std::string& text,
                                  std::string_view option = "--precision");  // UserError: an unknown one
// Threads that compute; 0: the share of each of `processes` on this machine. UserError: out of range.
void set_threads(int64_t threads, int64_t processes = 1);

// --no-verify, as every command has it that loads a model with exits.
void declare_no_verify(CommandLine& line, bool& no_verify);
// Says on standard error that the folder has no checksums to verify, should that be so.
void warn_of_missing_checksums(const std::string& folder);

struct ModelArguments {
  std::string folder;
  std::string precision = "stored";
  std::string exits;    // "": all
  int64_t threads = 0;  // 0: its share of the cores
  bool no_verify = false;

  void declare(CommandLine& line);
  // UserError: a number of threads out of range. `processes`: on this machine, which share its cores.
  void set_threads(int64_t processes) const;
  infer::LoadRequest request() const;  // UserError: an unknown precision, layers out of range
  infer::Model load() const;           // in a single process; also sets the number of threads, and warns
  std::unique_ptr<tokenizer::Tokenizer> load_tokenizer(const infer::Model& model) const;
};

}  // namespace ee::cli
