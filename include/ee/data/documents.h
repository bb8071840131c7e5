// Text on disk as a sequence of documents: one per text file, one per line of a .jsonl file. Prompts, too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ee/tokenizer/tokenizer.h"

namespace ee::data {

// The files that `paths` name, in a fixed order: a file stands for itself, a folder for every regular file in
// it (recursively, sorted by path; names that begin with a dot are left out). UserError: a path does not
// exist, a folder without files, no path at all. `option` names the list in messages ("data.train").
std::vector<std::filesystem::path> find_text_files(const std::vector<std::string>& paths,
                                                   std::string_view option);

struct Document {
  std::string text;             // "" with tokens
  std::vector<int64_t> tokens;  // instead of text: ids that were known already
  int64_t prompt_tokens = 0;    // so many of the tokens, at the beginning, are not to be learned
  std::string where;            // "file:line", for messages about tokens
};

// Calls `visit` with each document of `file`, in order. `.jsonl` files hold one JSON object with a string
// "text" or an array "tokens" a line (with both, the tokens count: text cannot say everything that ids can;
// empty lines are skipped), beside "tokens" optionally "prompt_tokens"; every other file is one document.
// Empty documents are left out. UserError naming file and line or byte: not UTF-8, not JSON, neither "text"
// nor "tokens", more prompt tokens than tokens.
void for_each_document(const std::filesystem::path& file, const std::function<void(Document)>& visit);

// A document's ids: of text, as the tokenizer makes them, with BOS in front if it adds one; else its tokens,
// without an end-of-text token at their end, because whoever joins documents puts one behind each. UserError:
// a token outside the tokenizer's vocabulary.
std::vector<int64_t> document_tokens(const Document& document, const tokenizer::Tokenizer& tokenizer);

// One prompt a line; of a .jsonl file, the string "prompt" of each. Empty lines are skipped. UserError naming
// file and line or byte: not UTF-8, not JSON, no "prompt", no prompt at all.
std::vector<std::string> read_prompts(const std::filesystem::path& file);

// The position of the first byte that is not valid UTF-8 (overlong forms and surrogates are not), or
// text.size().
size_t find_invalid_utf8(std::string_view text);

}  // namespace ee::data
