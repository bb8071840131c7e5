#include "ee/data/corpus.h"

#include <algorithm>
#include <cstring>

#include "ee/base/error.h"
#include "ee/base/hash.h"

namespace ee::data {

namespace {

constexpr std::string_view kMagic = "EETOKEN2";
constexpr size_t kDigest = 32, kTrailer = 2 * sizeof(uint64_t) + kDigest;

}  // namespace

Corpus::Corpus(const std::filesystem::path& cache_file) : file_(cache_file) {
  const auto bytes = file_.bytes();
  const auto broken = [&](std::string_view why) {
    return base::UserError("token cache {} is broken ({}); delete it", cache_file.string(), why);
  };
  const auto text = std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (bytes.size() < kMagic.size() + sizeof(uint64_t) + kTrailer || !text.starts_with(kMagic))
    throw broken("not a token cache");

  uint64_t documents = 0, tokens = 0;
  std::memcpy(&documents, bytes.data() + bytes.size() - kTrailer, sizeof documents);
  std::memcpy(&tokens, bytes.data() + bytes.size() - kTrailer + sizeof documents, sizeof tokens);
  const size_t room = bytes.size() / sizeof(uint32_t);
  if (documents > room || tokens > room) throw broken("sizes larger than the file");
  const size_t bounds_at = kMagic.size() + (tokens * sizeof(uint32_t) + 7) / 8 * 8;
  if (bounds_at + (documents + 1) * sizeof(uint64_t) + kTrailer != bytes.size()) throw broken("truncated");

  fingerprint_ = text.substr(text.size() - kDigest);
  if (base::hash_bytes(bytes.first(bytes.size() - kDigest)) != fingerprint_) throw broken("wrong checksum");
  tokens_ = {reinterpret_cast<const uint32_t*>(bytes.data() + kMagic.size()), tokens};
  bounds_ = {reinterpret_cast<const uint64_t*>(bytes.data() + bounds_at), documents + 1};
  if (bounds_.front() != 0 || bounds_.back() != tokens || !std::is_sorted(bounds_.begin(), bounds_.end()))
    throw broken("document bounds out of order");
}

std::span<const uint32_t> Corpus::document(int64_t index) const {
  const uint64_t begin = bounds_[static_cast<size_t>(index)], end = bounds_[static_cast<size_t>(index) + 1];
  return tokens_.subspan(begin, end - begin);
}

}  // namespace ee::data
