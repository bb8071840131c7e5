#include "ee/data/packing.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

namespace ee::data {

uint64_t mix_seed(uint64_t seed, uint64_t salt) {
  uint64_t x = seed + 0x9E3779B97F4A7C15ULL * (salt + 1);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

Permutation::Permutation(int64_t size, uint64_t key)
    : size_(static_cast<uint64_t>(size)), key_(key), half_bits_((std::bit_width(size_) + 1) / 2) {}

int64_t Permutation::operator[](int64_t index) const {
  constexpr int kRounds = 6;
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  auto x = static_cast<uint64_t>(index);
  do {  // a bijection of 0..4^half_bits-1; walk its cycle until it comes back into 0..size-1
    uint64_t left = x >> half_bits_, right = x & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t mixed = left ^ (mix_seed(key_ + round, right) & mask);
      left = right;
      right = mixed;
    }
    x = left << half_bits_ | right;
  } while (x >= size_);
  return static_cast<int64_t>(x);
}

std::vector<Segment> whole_documents(const Corpus& corpus) {
  std::vector<Segment> segments;
  for (int64_t i = 0; i < corpus.documents(); ++i)
    segments.push_back({i, 0, static_cast<int64_t>(corpus.document(i).size())});
  return segments;
}

Split split_documents(const Corpus& corpus, double fraction, uint64_t seed) {
  auto missing = static_cast<int64_t>(std::ceil(fraction * static_cast<double>(corpus.tokens())));
  const Permutation order(corpus.documents(), mix_seed(seed, 0x5EED));
  std::vector<int64_t> held_out(static_cast<size_t>(corpus.documents()), 0);  // tokens at the end of each
  for (int64_t i = 0; i < corpus.documents() && missing > 0; ++i) {
    const int64_t document = order[i];
    const auto taken = std::min(missing, static_cast<int64_t>(corpus.document(document).size()));
    held_out[static_cast<size_t>(document)] = taken;
    missing -= taken;
  }
  Split split;
  for (const auto& whole : whole_documents(corpus)) {
    const int64_t cut = whole.end - held_out[static_cast<size_t>(whole.document)];
    if (cut > 0) split.train.push_back({whole.document, 0, cut});
    if (cut < whole.end) split.validation.push_back({whole.document, cut, whole.end});
  }
  return split;
}

PackedSequences::PackedSequences(std::shared_ptr<const Corpus> corpus, std::vector<Segment> segments,
                                 int64_t sequence_length, int64_t separator)
    : corpus_(std::move(corpus)),
      segments_(std::move(segments)),
      sequence_length_(sequence_length),
      separator_(separator) {
  EE_CHECK(sequence_length > 0, "sequence length {}", sequence_length);
  for (const auto& segment : segments_) {
    starts_.push_back(stream_tokens_);
    stream_tokens_ += segment.end - segment.begin + 1;
  }
}

void PackedSequences::copy(int64_t index, std::span<int64_t> window) const {
  EE_CHECK(index >= 0 && index < size() && std::ssize(window) == sequence_length_ + 1,
           "window {} of {}, {} tokens asked for, {} in one", index, size(), window.size(),
           sequence_length_ + 1);
  int64_t position = index * sequence_length_;  // in the stream
  auto which =
      static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), position) - starts_.begin() - 1);
  for (size_t filled = 0; filled < window.size(); ++which) {
    const Segment& segment = segments_[which];
    const int64_t skip = position - starts_[which];
    const auto tokens = corpus_->document(segment.document)
                            .subspan(static_cast<size_t>(segment.begin + skip),
                                     static_cast<size_t>(segment.end - segment.begin - skip));
    const size_t count = std::min(tokens.size(), window.size() - filled);
    std::copy_n(tokens.begin(), count, window.begin() + static_cast<int64_t>(filled));
    filled += count;
    position += static_cast<int64_t>(count);
    if (filled < window.size()) {
      window[filled++] = separator_;
      ++position;
    }
  }
}

at::Tensor Batch::inputs() const { return tokens.narrow(1, 0, tokens.size(1) - 1); }
at::Tensor Batch::targets() const { return tokens.narrow(1, 1, tokens.size(1) - 1); }

BatchSource::BatchSource(PackedSequences sequences, bool shuffle, uint64_t seed, std::string_view what)
    : sequences_(std::move(sequences)), shuffle_(shuffle), seed_(seed) {
  if (sequences_.size() == 0)
    throw base::UserError(
        "{}: {} tokens in {} documents do not make one sequence of {} (+1) tokens; give more text or lower "
        "batch.sequence_length",
        what, sequences_.tokens(), sequences_.documents(), sequences_.sequence_length());
}

int64_t BatchSource::sequence_index(int64_t sample) const {
  const int64_t epoch = sample / sequences_.size(), index = sample % sequences_.size();
  if (!shuffle_) return index;
  return Permutation(sequences_.size(), mix_seed(seed_, static_cast<uint64_t>(epoch)))[index];
}

Batch BatchSource::at(int64_t sample, int64_t count) const {
  const int64_t width = sequences_.sequence_length() + 1;
  Batch batch{at::empty({count, width}, at::kLong)};
  for (int64_t i = 0; i < count; ++i)
    sequences_.copy(sequence_index(sample + i),
                    {batch.tokens.data_ptr<int64_t>() + i * width, static_cast<size_t>(width)});
  return batch;
}

}  // namespace ee::data
