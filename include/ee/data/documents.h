// Text on disk as a sequence of documents: one per text file, one per line of a .jsonl file.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace ee::data {

// The files that `paths` name, in a fixed order: a file stands for itself, a folder for every regular file in
// it (recursively, sorted by path; names that begin with a dot are left out). UserError: a path does not
// exist, a folder without files, no path at all. `option` names the list in messages ("data.train").
std::vector<std::filesystem::path> find_text_files(const std::vector<std::string>& paths,
                                                   std::string_view option);

// Calls `visit` with the text of each document of `file`, in order. `.jsonl` files hold one JSON object with
// a string "text" a line (empty lines are skipped); every other file is one document. Empty documents are
// left out. UserError naming file and line or byte: not UTF-8, not JSON, no "text".
void for_each_document(const std::filesystem::path& file, const std::function<void(std::string)>& visit);

// The position of the first byte that is not valid UTF-8 (overlong forms and surrogates are not), or
// text.size().
size_t find_invalid_utf8(std::string_view text);

}  // namespace ee::data
