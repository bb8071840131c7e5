#include "ee/data/documents.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/format/jsonl.h"

namespace ee::data {
namespace fs = std::filesystem;
using base::UserError;

namespace {

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::end(entry); ++entry) {
    if (is_hidden(entry->path())) {
      if (entry->is_directory()) entry.disable_recursion_pending();
    } else if (entry->is_regular_file()) {
      files.push_back(entry->path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::vector<fs::path> find_text_files(const std::vector<std::string>& paths, std::string_view option) {
  if (paths.empty()) throw UserError("{} is empty; name at least one text file or folder", option);
  std::vector<fs::path> files;
  for (const fs::path path : paths) {
    try {
      if (fs::is_regular_file(path)) {
        files.push_back(path);
      } else if (fs::is_directory(path)) {
        const auto below = files_below(path);
        if (below.empty()) throw UserError("{}: folder {} holds no files", option, path.string());
        files.insert(files.end(), below.begin(), below.end());
      } else {
        throw UserError("{}: {} is neither a file nor a folder; check the path", option, path.string());
      }
    } catch (const fs::filesystem_error& error) {
      throw UserError("{}: cannot list {}: {}", option, path.string(), error.code().message());
    }
  }
  return files;
}

size_t find_invalid_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  size_t i = 0;
  while (i < text.size()) {
    const unsigned lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4 || i + length > text.size()) return i;
    for (size_t k = 1; k < length; ++k)
      if ((byte(i + k) & 0xC0) != 0x80) return i;
    const unsigned second = byte(i + 1);
    const bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
    const bool out_of_range = (lead == 0xED && second > 0x9F) || (lead == 0xF4 && second > 0x8F);
    if (overlong || out_of_range) return i;
    i += length;
  }
  return text.size();
}

namespace {

void check_utf8(std::string_view text, const fs::path& file) {
  const size_t bad = find_invalid_utf8(text);
  if (bad < text.size())
    throw UserError("{}: not UTF-8 text: byte 0x{:02x} at offset {}; convert the file or leave it out",
                    file.string(), static_cast<unsigned char>(text[bad]), bad);
}

std::string text_of(const nlohmann::json& line, const std::string& where) {
  if (!line.is_object() || !line.contains("text"))
    throw UserError("{}: no \"text\"; expected {{\"text\": \"...\"}}", where);
  if (!line.at("text").is_string())
    throw UserError("{}: \"text\" is {}, expected a string", where, line.at("text").type_name());
  return line.at("text").get<std::string>();
}

}  // namespace

void for_each_document(const fs::path& file, const std::function<void(std::string)>& visit) {
  if (file.extension() == ".jsonl") {
    format::JsonlReader lines(file);
    for (nlohmann::json line; lines.next(line);)
      if (auto text = text_of(line, lines.where()); !text.empty()) visit(std::move(text));
    return;
  }
  const base::MappedFile mapped(file);
  const std::string_view text = as_text(mapped.bytes());
  check_utf8(text, file);
  if (!text.empty()) visit(std::string(text));
}

}  // namespace ee::data
