// What a file that a user brings is: text, or records. The one place that decides it.
#pragma once

#include "ee/format/unpacked_file.h"

namespace ee::format {

enum class FileKind {
  text,     // all of it is one text
  records,  // JSON values, each for itself: see records.h
};

// Looks at the file's name (without case, and without .gz or .zst at its end) and at its first 64 KiB, of
// which nothing is passed over. `.json`, `.jsonl`, `.jsonlines` and `.ndjson` are records. Any other name is
// text (prose, source code, HTML), unless it begins with a JSON object, or a list of such, that has a key
// "text", "tokens" or "prompt": those are records under a name that does not say so.
// UserError naming the file, what it is and what is read instead: a table (.parquet, .csv, ...), an archive,
// another compression, a document or an image, tokens of another program, UTF-16 or UTF-32, binary data.
FileKind find_kind(UnpackedFile& file);

// UserError if the text that `file` begins with is not UTF-8 but UTF-16, UTF-32 or binary data; for text that
// is text whatever it is called, as a prompt is.
void check_is_text(UnpackedFile& file);

}  // namespace ee::format
