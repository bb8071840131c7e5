// The tokenizer of a model, which may know more tokens than the model has embeddings.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "ee/tokenizer/tokenizer.h"

namespace ee::tokenizer {

// Tokenizer::load() for a model whose embedding has `rows` rows. Some folders list tokens beyond them, such
// as a padding token that was added and never trained. They do no harm until a text needs one: then encode()
// is a UserError that names the token. vocab_size() is at most `rows`. UserError, besides load()'s: the BOS
// or EOS is such a token.
std::unique_ptr<Tokenizer> load_model_tokenizer(const std::filesystem::path& folder, int64_t rows);

}  // namespace ee::tokenizer
