// Everything that can be checked about a model folder without a reference.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace ee::checkpoint {

// Tells `ok` one line for each check that passed: names, shapes and dtypes of all tensors, the checksum of
// each (nothing is remembered here: every byte is read), every value finite, tokenizer against vocabulary,
// and a forward pass through all layers and exits with finite logits. The first one that fails is a
// UserError; so is a folder with exits and without checksums, when all else has passed.
void verify_model_folder(const std::filesystem::path& folder,
                         const std::function<void(const std::string&)>& ok);

// For a folder with exits from before there were checksums: the same checks, then checksums of its tensors as
// they are now go into its ee_config.json. UserError also: it has checksums, or no exits.
void add_checksums(const std::filesystem::path& folder, const std::function<void(const std::string&)>& ok);

// What a user should know who loads a folder with exits and without checksums; empty for all others. Reads
// ee_config.json only.
std::string missing_checksums(const std::filesystem::path& folder);

}  // namespace ee::checkpoint
