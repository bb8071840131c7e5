// What stands in for a tokenizer where a model has none: data that is ids already needs no more.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "ee/tokenizer/tokenizer.h"

namespace ee::tokenizer {

// Whether the folder has one of the files that Tokenizer::load() needs.
bool has_tokenizer(const std::filesystem::path& folder);

// For a model folder without tokenizer files: ids below `vocab_size`, the first of `eos_tokens` (there may be
// none) for the end of text. encode() is a UserError that names the files that text needs.
std::unique_ptr<Tokenizer> make_ids_only_tokenizer(const std::filesystem::path& folder, int64_t vocab_size,
                                                   std::span<const int64_t> eos_tokens);

// For reading data, which may be ids: load_model_tokenizer() where the folder has a tokenizer, otherwise what
// stands in for it.
std::unique_ptr<Tokenizer> load_data_tokenizer(const std::filesystem::path& folder, int64_t rows,
                                               std::span<const int64_t> eos_tokens);

}  // namespace ee::tokenizer
