// The options that every command of ee-infer has, and the model they load.
#pragma once

#include <string>

#include "cli_options.h"
#include "ee/infer/model.h"

namespace ee::cli {

struct ModelArguments {
  std::string folder;
  std::string precision = "stored";
  std::string exits;  // "": all
  int64_t threads = 0;

  void declare(CommandLine& line);
  infer::Model load() const;  // also sets the number of threads
  std::unique_ptr<tokenizer::Tokenizer> load_tokenizer(const infer::Model& model) const;
};

}  // namespace ee::cli
