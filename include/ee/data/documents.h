// Text on disk as a sequence of documents: one per text file, one per record of a file of records; prompts,
// too. format/file_kind.h says which file is which, and unpacks .gz and .zst.
//
// A byte order mark at the beginning of a file is no part of its text. Everything else in a text stays as it
// is, "\r\n" included (Hugging Face's text loader makes it "\n"; convert the file if the model is to learn
// that).
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
// exist, a folder without files, no path at all, and files that are not read (all of them, with what they
// are): a folder of data holds nothing else, so that nobody trains on the README beside a table by mistake.
// `option` names the list in messages ("data.train").
std::vector<std::filesystem::path> find_text_files(const std::vector<std::string>& paths,
                                                   std::string_view option);

struct Document {
  std::string text;             // "" with tokens
  std::vector<int64_t> tokens;  // instead of text: ids that were known already
  int64_t prompt_tokens = 0;    // so many of the tokens, at the beginning, are not to be learned
  std::string where;            // "file:line", for messages about tokens
  uint64_t bytes_read = 0;      // of the file, packed as it is, up to here; for progress bars
};

// How many documents there were, and how many of them had nothing in them and were left out.
struct DocumentCount {
  int64_t all = 0, empty = 0;
  std::string first_empty = {};  // "file:line"

  void add_empty(const std::string& where);
  DocumentCount& operator+=(const DocumentCount& more);
  // Says on standard error how many were empty, if any; `what` names them ("documents").
  void warn(std::string_view what) const;
};

// Calls `visit` with each document of `file`, in order. A record is an object with a string "text" or an
// array "tokens" (with both, the tokens count: text cannot say everything that ids can), beside "tokens"
// optionally "prompt_tokens"; or a string, which is the text. null means the same as a key that is not there.
// Documents that are empty, null or lack both keys are left out and counted. UserError naming file and line
// or byte: not UTF-8, not JSON, a key or record of another type, prompt tokens without tokens or more of
// them; a file that is not read, or of which no record has a key "text" or "tokens".
DocumentCount for_each_document(const std::filesystem::path& file,
                                const std::function<void(Document)>& visit);

// A document's ids: of text, as the tokenizer makes them, with BOS in front if it adds one; else its tokens.
// An end-of-text token at their end is left out, because whoever joins documents puts one behind each.
// UserError: a token outside the tokenizer's vocabulary, or a text that the tokenizer cannot encode.
std::vector<int64_t> document_tokens(const Document& document, const tokenizer::Tokenizer& tokenizer);

// One prompt a line, of which "\n" and "\r\n" are no part and empty ones are skipped; of records, the string
// "prompt" of each (or the string that it is), where empty, null and missing ones are left out and said on
// standard error. UserError naming file and line or byte: not UTF-8, not JSON, "prompt" of another type, a
// file that is not read, no prompt at all.
std::vector<std::string> read_prompts(const std::filesystem::path& file);

// All of a file that is text whatever it is called, without a byte order mark; unpacked if it is packed.
// UserError: it cannot be read, it is not UTF-8.
std::string read_text(const std::filesystem::path& file);

// A text that was read from somewhere else ("standard input"), without its byte order mark. UserError: not
// UTF-8.
std::string as_text(std::string bytes, const std::string& origin);

// The position of the first byte that is not valid UTF-8 (overlong forms and surrogates are not), or
// text.size().
size_t find_invalid_utf8(std::string_view text);

}  // namespace ee::data
