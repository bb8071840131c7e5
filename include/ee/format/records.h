// JSON records in a file, one after the other: JSON Lines, or the elements of one list.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "ee/format/unpacked_file.h"

namespace ee::format {

// Reads what Hugging Face's datasets reads as JSON, whatever the file is called: values with white space
// between them (JSON Lines; objects over several lines) or, if the file begins with `[`, the elements of that
// list. One record at a time is in memory, however long the list is.
class RecordReader {
 public:
  explicit RecordReader(UnpackedFile file);

  // The next record; false at the end. UserError names file and line: not JSON, a list that does not end,
  // something behind a list, a record longer than 1 GiB.
  bool next(nlohmann::json& value);

  // Where the record that next() gave last begins, for the caller's messages: "file:line", and in a list
  // "file:line (record n)", n from 1.
  std::string where() const;
  uint64_t bytes_read() const { return file_.bytes_read(); }  // of the file, as it lies on disk

 private:
  enum class Place { start, values, list, behind };

  void begin();
  void skip_space();
  bool begin_element();
  void take_value();
  void take_text();
  void take_byte();
  std::string here() const;

  UnpackedFile file_;
  std::string text_;  // of the record
  Place place_ = Place::start;
  uint64_t line_ = 1, record_line_ = 1, records_ = 0;
};

}  // namespace ee::format
