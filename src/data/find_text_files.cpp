#include <algorithm>
#include <system_error>

#include "ee/base/error.h"
#include "ee/base/text.h"
#include "ee/data/documents.h"
#include "ee/format/file_kind.h"

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

// What `files` has that is not read, by one message each.
std::vector<std::string> problems_of(const std::vector<fs::path>& files) {
  std::vector<std::string> problems;
  for (const fs::path& file : files) {
    try {
      format::UnpackedFile unpacked(file);
      format::find_kind(unpacked);
    } catch (const UserError& error) {
      problems.emplace_back(error.what());
    }
  }
  return problems;
}

void check_kinds(const std::vector<fs::path>& files, std::string_view option) {
  constexpr size_t kShown = 3;
  std::vector<std::string> problems = problems_of(files);
  if (problems.empty()) return;
  const size_t hidden = problems.size() - std::min(problems.size(), kShown);
  problems.resize(problems.size() - hidden);
  throw UserError("{}: {}{}", option, base::join(problems, "; "),
                  hidden > 0 ? fmt::format("; and {} more files that are not read", hidden) : "");
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
  check_kinds(files, option);
  return files;
}

}  // namespace ee::data
