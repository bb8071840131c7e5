// Whether the tokenizer of a model in the making can be used.
#pragma once

#include <cstdint>
#include <filesystem>

namespace ee::checkpoint {

// Opens the tokenizer files in `folder` as training and inference will, for an embedding of `rows` rows.
// UserError that names `source`, where they come from.
void check_tokenizer_opens(const std::filesystem::path& folder, int64_t rows,
                           const std::filesystem::path& source);

}  // namespace ee::checkpoint
