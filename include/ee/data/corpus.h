// Tokenized documents: made once, kept in a cache file, memory-mapped from then on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ee/base/file.h"
#include "ee/tokenizer/tokenizer.h"

namespace ee::data {

// The cache file, little-endian:
//   8 bytes "EETOKEN2" | u32 token[N] | zeros to a multiple of 8 | u64 bound[D + 1] | u64 D | u64 N |
//   32 bytes: hex XXH3-128 of everything before
// Document d is token[bound[d] .. bound[d + 1]). A token's highest bit says that it belongs to a prompt: it
// is read, but not to be learned.
inline constexpr uint32_t kPromptBit = uint32_t{1} << 31;

class Corpus {
 public:
  // Maps an existing cache file. UserError: truncated, or its checksum does not match.
  explicit Corpus(const std::filesystem::path& cache_file);

  int64_t documents() const { return static_cast<int64_t>(bounds_.size()) - 1; }
  int64_t tokens() const { return static_cast<int64_t>(tokens_.size()); }
  std::span<const uint32_t> document(int64_t index) const;

  // Of all tokens and bounds: tells two corpora apart, in checkpoints.
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  base::MappedFile file_;
  std::span<const uint32_t> tokens_;
  std::span<const uint64_t> bounds_;
  std::string fingerprint_;
};

struct CorpusOptions {
  std::filesystem::path cache;  // folder of cache files, created when needed
  int threads = 1;              // that tokenize
  // Called now and then while tokenizing, with the bytes of text done and of all; may be empty.
  std::function<void(int64_t done, int64_t total)> progress;
};

// The corpus of all documents of `files`, from the cache when a file for the same tokenizer and the same
// contents is there and whole; otherwise tokenized (documents are spread over the threads) and added to the
// cache, at once or not at all. Special tokens written out in the text become their ids, as transformers
// does; document_tokens() says what else its ids are. UserError as of for_each_document and document_tokens,
// and when there is no text at all.
Corpus open_corpus(const std::vector<std::filesystem::path>& files, const tokenizer::Tokenizer& tokenizer,
                   const CorpusOptions& options);

}  // namespace ee::data
