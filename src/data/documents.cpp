#include "ee/data/documents.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <system_error>

#include "ee/base/error.h"
#include "ee/base/text.h"
#include "ee/format/file_kind.h"
#include "ee/format/records.h"

namespace ee::data {
namespace fs = std::filesystem;
using base::UserError;
using Json = nlohmann::json;

namespace {

std::string read_rest(format::UnpackedFile& file) { return as_text(file.read_rest(), file.path().string()); }

// The value of `key`, or nullptr where it is missing or null.
const Json* find_value(const Json& record, const char* key) {
  const auto found = record.find(key);
  return found == record.end() || found->is_null() ? nullptr : &*found;
}

// A record's text: the string that it is or has at `key`, "" where there is none.
std::string text_of(const Json& record, const char* key, const std::string& where) {
  if (record.is_string()) return record.get<std::string>();
  if (!record.is_object() && !record.is_null())
    throw UserError("{}: the record is {}, expected an object with \"{}\"", where, record.type_name(), key);
  const Json* value = record.is_null() ? nullptr : find_value(record, key);
  if (!value) return "";
  if (!value->is_string())
    throw UserError("{}: \"{}\" is {}, expected a string", where, key, value->type_name());
  return value->get<std::string>();
}

std::vector<int64_t> tokens_of(const Json& tokens, const std::string& where) {
  if (!tokens.is_array() ||
      !std::ranges::all_of(tokens, [](const auto& token) { return token.is_number_integer(); }))
    throw UserError("{}: \"tokens\" is not an array of whole numbers; give token ids, or \"text\" alone",
                    where);
  return tokens.get<std::vector<int64_t>>();
}

int64_t prompt_tokens_of(const Json& count, size_t tokens, const std::string& where) {
  if (!count.is_number_unsigned() || count.get<uint64_t>() > tokens)
    throw UserError("{}: \"prompt_tokens\" is {}, expected how many of the record's {} tokens are the prompt",
                    where, count.dump(), tokens);
  return count.get<int64_t>();
}

Document document_of(const Json& record, const std::string& where) {
  const bool object = record.is_object();
  const Json* tokens = object ? find_value(record, "tokens") : nullptr;
  const Json* prompt_tokens = object ? find_value(record, "prompt_tokens") : nullptr;
  if (!tokens) {
    if (prompt_tokens)
      throw UserError(
          "{}: \"prompt_tokens\" counts ids, but there are no \"tokens\"; give the ids, or \"text\" "
          "alone, all of which is learned",
          where);
    return {.text = text_of(record, "text", where), .tokens = {}, .where = where};
  }
  Document document{.text = {}, .tokens = tokens_of(*tokens, where), .where = where};
  if (prompt_tokens) document.prompt_tokens = prompt_tokens_of(*prompt_tokens, document.tokens.size(), where);
  return document;
}

// The records of one file, and whether any of them has what is looked for: a file of other data must not
// count as one whose rows are empty.
class Records {
 public:
  Records(format::UnpackedFile file, std::initializer_list<const char*> keys)
      : file_(file.path().string()), reader_(std::move(file)), keys_(keys) {}

  bool next(Json& record) {
    if (!reader_.next(record)) {
      check_keys();
      return false;
    }
    has_keys_ = has_keys_ || !record.is_object() ||
                std::ranges::any_of(keys_, [&](const char* key) { return record.contains(key); });
    if (!first_) first_ = names_of(record);
    return true;
  }
  std::string where() const { return reader_.where(); }
  uint64_t bytes_read() const { return reader_.bytes_read(); }

 private:
  static std::string names_of(const Json& record) {
    std::vector<std::string> names;
    if (record.is_object())
      for (const auto& [name, value] : record.items()) names.push_back(Json(name).dump());
    return names.empty() ? "no keys" : base::join(names, ", ");
  }
  void check_keys() const {
    if (has_keys_ || !first_) return;
    throw UserError("{}: no record has a key \"{}\"; the first one has {}", file_,
                    fmt::join(keys_, "\" or \""), *first_);
  }

  std::string file_;
  format::RecordReader reader_;
  std::vector<const char*> keys_;
  std::optional<std::string> first_;  // the first one's keys
  bool has_keys_ = false;
};

}  // namespace

void DocumentCount::add_empty(const std::string& where) {
  if (empty++ == 0) first_empty = where;
}

DocumentCount& DocumentCount::operator+=(const DocumentCount& more) {
  if (empty == 0) first_empty = more.first_empty;
  all += more.all;
  empty += more.empty;
  return *this;
}

void DocumentCount::warn(std::string_view what) const {
  if (empty > 0)
    fmt::print(stderr, "warning: {} of {} {} are empty and left out, the first is {}\n", empty, all, what,
               first_empty);
}

DocumentCount for_each_document(const fs::path& file, const std::function<void(Document)>& visit) {
  DocumentCount count;
  const auto add = [&](Document document, uint64_t bytes_read) {
    ++count.all;
    if (document.text.empty() && document.tokens.empty()) {
      count.add_empty(document.where);
      return;
    }
    document.bytes_read = bytes_read;
    visit(std::move(document));
  };
  format::UnpackedFile unpacked(file);
  if (format::find_kind(unpacked) == format::FileKind::records) {
    Records records(std::move(unpacked), {"text", "tokens"});
    for (Json record; records.next(record);) add(document_of(record, records.where()), records.bytes_read());
  } else {
    std::string text = read_rest(unpacked);
    add({.text = std::move(text), .tokens = {}, .where = file.string()}, unpacked.bytes_read());
  }
  return count;
}

namespace {

std::vector<int64_t> encode(const Document& document, const tokenizer::Tokenizer& tokenizer) {
  try {
    return tokenizer.encode(document.text);
  } catch (const UserError& error) {
    throw UserError("{}: {}", document.where, error.what());
  }
}

}  // namespace

std::vector<int64_t> document_tokens(const Document& document, const tokenizer::Tokenizer& tokenizer) {
  std::vector<int64_t> tokens = document.tokens;
  if (tokens.empty()) {
    tokens = encode(document, tokenizer);
    if (tokenizer.adds_bos() && tokenizer.bos()) tokens.insert(tokens.begin(), *tokenizer.bos());
  }
  for (const int64_t token : tokens)
    if (token < 0 || token >= tokenizer.vocab_size())
      throw UserError(
          "{}: token {} is outside the tokenizer's vocabulary of {}; make the file with this model",
          document.where, token, tokenizer.vocab_size());
  // The one end of text that every document has is put behind it when documents are joined.
  if (tokenizer.eos() && !tokens.empty() && tokens.back() == *tokenizer.eos()) tokens.pop_back();
  return tokens;
}

namespace {

std::vector<std::string> prompts_of(Records records) {
  std::vector<std::string> prompts;
  DocumentCount count;
  for (Json record; records.next(record);) {
    std::string prompt = text_of(record, "prompt", records.where());
    ++count.all;
    if (prompt.empty()) {
      count.add_empty(records.where());
    } else {
      prompts.push_back(std::move(prompt));
    }
  }
  count.warn("prompts");
  return prompts;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) found.push_back(std::move(line));
  }
  return found;
}

}  // namespace

std::vector<std::string> read_prompts(const fs::path& file) {
  format::UnpackedFile unpacked(file);
  const bool records = format::find_kind(unpacked) == format::FileKind::records;
  auto prompts =
      records ? prompts_of(Records(std::move(unpacked), {"prompt"})) : lines_of(read_rest(unpacked));
  if (prompts.empty()) throw UserError("{} holds no prompts; write one a line", file.string());
  return prompts;
}

}  // namespace ee::data
