#include "open_tokenizer.h"

#include "ee/base/error.h"
#include "ee/tokenizer/model_tokenizer.h"

namespace ee::checkpoint {

void check_tokenizer_opens(const std::filesystem::path& folder, int64_t rows,
                           const std::filesystem::path& source) {
  try {
    tokenizer::load_model_tokenizer(folder, rows);
  } catch (const base::UserError& error) {
    throw base::UserError("the tokenizer of {} cannot be used: {}", source.string(), error.what());
  }
}

}  // namespace ee::checkpoint
