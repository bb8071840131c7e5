#include "ee/format/resumable_lines.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"

namespace ee::format {
namespace fs = std::filesystem;
using base::UserError;

ResumableLines::ResumableLines(const fs::path& output, const nlohmann::json& made_by)
    : output_(output), part_(output.string() + ".part") {
  if (fs::exists(output_))
    throw UserError("output {} exists already; remove it or choose another name", output_.string());
  lines_ = fs::exists(part_) ? resume(made_by) : -1;
  writer_ = std::make_unique<JsonlWriter>(part_);
  if (lines_ < 0) {
    writer_->write(made_by);
    lines_ = 0;
  }
}

// The number of whole lines of the part behind its first one; -1 when not even that is whole.
int64_t ResumableLines::resume(const nlohmann::json& made_by) {
  const std::string text = base::read_text_file(part_);
  const size_t whole = text.rfind('\n') + 1;               // 0 without any
  if (whole < text.size()) fs::resize_file(part_, whole);  // the last line was cut off
  if (whole == 0) return -1;
  const std::string first = text.substr(0, text.find('\n'));
  if (first != made_by.dump())
    throw UserError(
        "{} was begun with another model, other prompts or options:\n  {}\nnow:\n  {}\nRemove it to begin "
        "anew, "
        "or choose another output",
        part_.string(), first, made_by.dump());
  return std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(whole), '\n') - 1;
}

void ResumableLines::write(const nlohmann::json& line) {
  writer_->write(line);
  ++lines_;
}

void ResumableLines::finish() {
  writer_.reset();
  const std::string text = base::read_text_file(part_);
  base::write_file_atomically(output_, std::string_view(text).substr(text.find('\n') + 1));
  fs::remove(part_);
}

}  // namespace ee::format
