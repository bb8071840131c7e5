// From text files to a token cache: documents are read in rounds of bounded size, each round's documents are
// tokenized by all threads and appended in order, so memory stays small and the result does not depend on the
// number of threads.
#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "ee/base/hash.h"
#include "ee/data/corpus.h"
#include "ee/data/documents.h"
#include "ee/format/file_kind.h"

#include <unistd.h>

namespace ee::data {
namespace fs = std::filesystem;

namespace {

constexpr int64_t kRoundBytes = 16 << 20;  // of text that wait for the threads

// Tokenizes `documents` with `threads` threads that take the next document when they are free.
std::vector<std::vector<uint32_t>> encode_all(const std::vector<Document>& documents,
                                              const tokenizer::Tokenizer& tokenizer, int threads) {
  std::vector<std::vector<uint32_t>> results(documents.size());
  std::vector<std::exception_ptr> errors(static_cast<size_t>(threads));
  std::atomic<size_t> next{0};
  const auto work = [&](size_t thread) {
    try {
      for (size_t i = next++; i < documents.size(); i = next++) {
        const auto tokens = document_tokens(documents[i], tokenizer);
        results[i].assign(tokens.begin(), tokens.end());
        const size_t prompt = std::min(tokens.size(), static_cast<size_t>(documents[i].prompt_tokens));
        for (size_t t = 0; t < prompt; ++t) results[i][t] |= kPromptBit;
      }
    } catch (...) {
      errors[thread] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> workers;
    for (size_t thread = 1; thread < errors.size(); ++thread) workers.emplace_back(work, thread);
    work(0);
  }
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
  return results;
}

// Writes the format of corpus.h front to back.
class CacheWriter {
 public:
  explicit CacheWriter(const fs::path& path) : out_(path) { write(std::string_view("EETOKEN2")); }

  void add_document(const std::vector<uint32_t>& tokens) {
    write(std::as_bytes(std::span(tokens)));
    bounds_.push_back(bounds_.back() + tokens.size());
  }

  void finish() {
    const uint64_t tokens = bounds_.back(), documents = bounds_.size() - 1;
    if (tokens % 2) write(std::string_view("\0\0\0\0", 4));
    write(std::as_bytes(std::span(bounds_)));
    write(std::as_bytes(std::span(&documents, 1)));
    write(std::as_bytes(std::span(&tokens, 1)));
    out_.write(hasher_.digest());
    out_.close();
  }

  bool empty() const { return bounds_.back() == 0; }

 private:
  void write(std::span<const std::byte> bytes) {
    hasher_.update(bytes);
    out_.write(bytes);
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

  base::OutputFile out_;
  base::Hasher hasher_;
  std::vector<uint64_t> bounds_ = {0};
};

void tokenize(const std::vector<fs::path>& files, const tokenizer::Tokenizer& tokenizer,
              const CorpusOptions& options, int64_t total_bytes, CacheWriter& writer) {
  std::vector<Document> documents;
  int64_t waiting = 0;              // bytes of documents that wait for the threads
  int64_t whole = 0, position = 0;  // bytes of the files that were read, and with the one that is being read
  DocumentCount count;
  const auto flush = [&] {
    for (const auto& tokens : encode_all(documents, tokenizer, options.threads))
      if (!tokens.empty()) writer.add_document(tokens);
    waiting = 0;
    documents.clear();
    if (options.progress) options.progress(position, total_bytes);
  };
  for (const auto& file : files) {
    count += for_each_document(file, [&](Document document) {
      position = whole + static_cast<int64_t>(document.bytes_read);
      waiting += static_cast<int64_t>(document.text.size() + document.tokens.size() * sizeof(int64_t));
      documents.push_back(std::move(document));
      if (waiting >= kRoundBytes) flush();
    });
    position = whole += static_cast<int64_t>(fs::file_size(file));
  }
  flush();
  count.warn("documents");
}

// Tokenizer and contents decide; where the files lie does not matter, only how they are read: whoever changes
// what a file means changes these words.
std::string_view way_of_reading(const fs::path& file) {
  format::UnpackedFile unpacked(file);
  return format::find_kind(unpacked) == format::FileKind::records
             ? "records, unpacked, empty ones left out"
             : "text, unpacked, without a byte order mark";
}

std::string cache_key(const std::vector<fs::path>& files, const tokenizer::Tokenizer& tokenizer,
                      int64_t& total_bytes) {
  base::Hasher hasher;
  hasher.update(tokenizer.fingerprint());
  for (const auto& file : files) {
    const base::MappedFile mapped(file);
    total_bytes += static_cast<int64_t>(mapped.bytes().size());
    hasher.update(fmt::format("\n{} {} {}", way_of_reading(file), mapped.bytes().size(),
                              base::hash_bytes(mapped.bytes())));
  }
  return hasher.digest();
}

// The cache, if it is there and whole. A broken one is only worth its text and is made again.
std::optional<Corpus> open_cached(const fs::path& cached) {
  if (!fs::exists(cached)) return std::nullopt;
  try {
    return Corpus(cached);
  } catch (const base::UserError&) {
    fs::remove(cached);
    return std::nullopt;
  }
}

}  // namespace

Corpus open_corpus(const std::vector<fs::path>& files, const tokenizer::Tokenizer& tokenizer,
                   const CorpusOptions& options) {
  int64_t total_bytes = 0;
  const fs::path cached = options.cache / (cache_key(files, tokenizer, total_bytes) + ".tokens");
  if (auto corpus = open_cached(cached)) return std::move(*corpus);
  std::error_code error;
  fs::create_directories(options.cache, error);
  if (error)
    throw base::UserError("cannot create the token cache folder {}: {}", options.cache.string(),
                          error.message());
  const base::FolderLock one_process_makes_it(options.cache);  // and the others have waited for it
  if (auto corpus = open_cached(cached)) return std::move(*corpus);
  const fs::path unfinished = fmt::format("{}.{}.tmp", cached.string(), ::getpid());
  try {
    CacheWriter writer(unfinished);
    tokenize(files, tokenizer, options, total_bytes, writer);
    if (writer.empty())
      throw base::UserError("no text in {}{}; every document is empty", files.front().string(),
                            files.size() > 1 ? fmt::format(" and {} more files", files.size() - 1) : "");
    writer.finish();
    fs::rename(unfinished, cached);
  } catch (...) {
    fs::remove(unfinished, error);
    throw;
  }
  return Corpus(cached);
}

}  // namespace ee::data
