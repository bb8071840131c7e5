#include "ee/format/jsonl.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"

namespace ee::format {

using base::UserError;

namespace {

bool ends_without_newline(int descriptor) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || status.st_size == 0) return false;
  char last = '\n';
  return ::pread(descriptor, &last, 1, status.st_size - 1) == 1 && last != '\n';
}

void write_all(int descriptor, std::string_view text, const std::filesystem::path& path) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw UserError("cannot write {}: {}", path.string(), std::strerror(errno));
    text.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace

JsonlWriter::JsonlWriter(const std::filesystem::path& path)
    : path_(path), descriptor_(::open(path.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) throw UserError("cannot write {}: {}", path.string(), std::strerror(errno));
  // A run that was killed may have left half a line: keep ours apart from it.
  if (ends_without_newline(descriptor_)) write_all(descriptor_, "\n", path_);
}

JsonlWriter::~JsonlWriter() { ::close(descriptor_); }

void JsonlWriter::write(const nlohmann::json& value) {
  write_all(descriptor_, value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n", path_);
}

}  // namespace ee::format
