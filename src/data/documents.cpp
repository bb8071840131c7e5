#include "ee/data/documents.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
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

std::string string_of(const nlohmann::json& line, const char* key, const std::string& where) {
  if (!line.is_object() || !line.contains(key))
    throw UserError("{}: no \"{}\"; expected {{\"{}\": \"...\"}}", where, key, key);
  if (!line.at(key).is_string())
    throw UserError("{}: \"{}\" is {}, expected a string", where, key, line.at(key).type_name());
  return line.at(key).get<std::string>();
}

std::vector<int64_t> tokens_of(const nlohmann::json& tokens, const std::string& where) {
  if (!tokens.is_array() ||
      !std::ranges::all_of(tokens, [](const auto& token) { return token.is_number_integer(); }))
    throw UserError("{}: \"tokens\" is not an array of whole numbers; give token ids, or \"text\" alone",
                    where);
  return tokens.get<std::vector<int64_t>>();
}

int64_t prompt_tokens_of(const nlohmann::json& line, size_t tokens, const std::string& where) {
  const auto found = line.find("prompt_tokens");
  if (found == line.end()) return 0;
  if (!found->is_number_unsigned() || found->get<uint64_t>() > tokens)
    throw UserError("{}: \"prompt_tokens\" is {}, expected how many of the line's {} tokens are the prompt",
                    where, found->dump(), tokens);
  return found->get<int64_t>();
}

Document document_of(const nlohmann::json& line, const std::string& where) {
  if (!line.is_object() || !line.contains("tokens"))
    return {.text = string_of(line, "text", where), .tokens = {}, .where = where};
  Document document{.text = {}, .tokens = tokens_of(line.at("tokens"), where), .where = where};
  document.prompt_tokens = prompt_tokens_of(line, document.tokens.size(), where);
  return document;
}

}  // namespace

void for_each_document(const fs::path& file, const std::function<void(Document)>& visit) {
  const auto visit_unless_empty = [&](Document document) {
    if (!document.text.empty() || !document.tokens.empty()) visit(std::move(document));
  };
  if (file.extension() == ".jsonl") {
    format::JsonlReader lines(file);
    for (nlohmann::json line; lines.next(line);) visit_unless_empty(document_of(line, lines.where()));
    return;
  }
  const base::MappedFile mapped(file);
  const std::string_view text = as_text(mapped.bytes());
  check_utf8(text, file);
  visit_unless_empty({.text = std::string(text), .tokens = {}, .where = file.string()});
}

std::vector<int64_t> document_tokens(const Document& document, const tokenizer::Tokenizer& tokenizer) {
  std::vector<int64_t> tokens = document.tokens;
  if (tokens.empty()) {
    tokens = tokenizer.encode(document.text);
    if (tokenizer.adds_bos() && tokenizer.bos()) tokens.insert(tokens.begin(), *tokenizer.bos());
    return tokens;
  }
  for (const int64_t token : tokens)
    if (token < 0 || token >= tokenizer.vocab_size())
      throw UserError(
          "{}: token {} is outside the tokenizer's vocabulary of {}; make the file with this model",
          document.where, token, tokenizer.vocab_size());
  if (tokenizer.eos() && tokens.back() == *tokenizer.eos()) tokens.pop_back();
  return tokens;
}

std::vector<std::string> read_prompts(const fs::path& file) {
  std::vector<std::string> prompts;
  const auto add = [&](std::string prompt) {
    if (!prompt.empty()) prompts.push_back(std::move(prompt));
  };
  if (file.extension() == ".jsonl") {
    format::JsonlReader lines(file);
    for (nlohmann::json line; lines.next(line);) add(string_of(line, "prompt", lines.where()));
  } else {
    const std::string text = base::read_text_file(file);
    check_utf8(text, file);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      if (line.ends_with('\r')) line.pop_back();
      add(std::move(line));
    }
  }
  if (prompts.empty()) throw UserError("{} holds no prompts; write one a line", file.string());
  return prompts;
}

}  // namespace ee::data
