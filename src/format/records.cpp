#include "ee/format/records.h"

#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "json_text.h"

namespace ee::format {

using base::UserError;

namespace {

constexpr std::size_t kLongest = std::size_t{1} << 30;
constexpr int kEnd = UnpackedFile::kEnd;

bool is_space(int byte) { return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n'; }

bool ends_plain_value(int byte) {
  return byte == kEnd || is_space(byte) || byte == ',' || byte == ']' || byte == '}';
}

}  // namespace

RecordReader::RecordReader(UnpackedFile file) : file_(std::move(file)) {}

bool RecordReader::next(nlohmann::json& value) {
  if (place_ == Place::start) begin();
  skip_space();
  const bool more = place_ == Place::list     ? begin_element()
                    : place_ == Place::values ? file_.peek() != kEnd
                                              : false;
  if (!more) return false;
  record_line_ = line_;
  ++records_;
  take_value();
  value = parse_json(text_, where());
  return true;
}

std::string RecordReader::where() const {
  const std::string line = fmt::format("{}:{}", file_.path().string(), record_line_);
  return place_ == Place::values ? line : fmt::format("{} (record {})", line, records_);
}

std::string RecordReader::here() const { return fmt::format("{}:{}", file_.path().string(), line_); }

void RecordReader::begin() {
  file_.skip_byte_order_mark();
  skip_space();
  place_ = file_.peek() == '[' ? Place::list : Place::values;
  if (place_ == Place::list) file_.get();
}

void RecordReader::skip_space() {
  while (is_space(file_.peek()))
    if (file_.get() == '\n') ++line_;
}

// Goes to the next element of the list; false behind the last one, where nothing else may stand.
bool RecordReader::begin_element() {
  if (file_.peek() == ']') {
    file_.get();
    skip_space();
    if (file_.peek() != kEnd)
      throw UserError("{}: not valid JSON: there is something behind the list of records", here());
    place_ = Place::behind;
    return false;
  }
  if (records_ == 0) return true;
  if (file_.peek() == kEnd)
    throw UserError("{}: not valid JSON: the list of records does not end; is the file cut off?", here());
  if (file_.get() != ',')
    throw UserError("{}: not valid JSON: a comma or ] is missing behind record {}", here(), records_);
  skip_space();
  return true;
}

// The text of one value: no more is looked at than where it ends; the parser judges it.
void RecordReader::take_value() {
  text_.clear();
  int depth = 0;
  do {
    const int byte = file_.peek();
    if (byte == kEnd)
      throw UserError("{}: not valid JSON: the file ends inside this record; is it cut off?", where());
    if (byte == '"') {
      take_text();
      continue;
    }
    take_byte();
    if (byte == '{' || byte == '[') {
      ++depth;
    } else if (byte == '}' || byte == ']') {
      --depth;
    } else if (depth == 0) {
      while (!ends_plain_value(file_.peek())) take_byte();
    }
  } while (depth > 0);
}

// From quote to quote. A line end in it is no JSON: found here, a forgotten quote does not swallow the file.
void RecordReader::take_text() {
  for (bool escaped = false, first = true;; first = false) {
    const int byte = file_.peek();
    if (byte == kEnd || byte == '\n')
      throw UserError("{}: not valid JSON: a text is not closed before its line ends", here());
    take_byte();
    if (byte == '"' && !escaped && !first) return;
    escaped = byte == '\\' && !escaped;
  }
}

void RecordReader::take_byte() {
  const int byte = file_.get();
  if (byte == '\n') ++line_;
  text_.push_back(static_cast<char>(byte));
  if (text_.size() > kLongest)
    throw UserError("{}: this record is longer than 1 GiB; is a bracket missing?", where());
}

}  // namespace ee::format
