// Everything that can be checked about a model folder without a reference.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace ee::checkpoint {

// Tells `ok` one line for each check that passed: names, shapes and dtypes of all tensors, fingerprint, every
// value finite, tokenizer against vocabulary, and a forward pass through all layers and exits with finite
// logits. The first one that fails is a UserError.
void verify_model_folder(const std::filesystem::path& folder,
                         const std::function<void(const std::string&)>& ok);

}  // namespace ee::checkpoint
