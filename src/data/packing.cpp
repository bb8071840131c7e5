#include "ee/data/packing.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "ee/base/error.h"
#include "ee/base/hash.h"

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

std::string PackedSequences::fingerprint() const {
  base::Hasher hasher;
  hasher.update(fmt::format("{} {} {}", corpus_->fingerprint(), sequence_length_, separator_));
  hasher.update(std::as_bytes(std::span(segments_)));
  return hasher.digest();
}

std::vector<uint32_t> PackedSequences::window(int64_t index) const {
  std::vector<uint32_t> window(static_cast<size_t>(sequence_length_) + 1);
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
    std::copy_n(tokens.begin(), count, window.begin() + static_cast<std::ptrdiff_t>(filled));
    filled += count;
    position += static_cast<int64_t>(count);
    if (filled < window.size()) {
      window[filled++] = static_cast<uint32_t>(separator_);
      ++position;
    }
  }
  return window;
}

void PackedSequences::copy(int64_t index, std::span<int64_t> inputs, std::span<int64_t> targets) const {
  EE_CHECK(index >= 0 && index < size() && std::ssize(inputs) == sequence_length_ &&
               std::ssize(targets) == sequence_length_,
           "window {} of {}, {} and {} tokens asked for, {} in one", index, size(), inputs.size(),
           targets.size(), sequence_length_);
  const std::vector<uint32_t> window = this->window(index);
  for (size_t i = 0; i < inputs.size(); ++i) {
    inputs[i] = window[i] & ~kPromptBit;
    targets[i] = window[i + 1] & kPromptBit ? kNoTarget : window[i + 1];
  }
}

int64_t PackedSequences::learned_tokens(int64_t index) const {
  const std::vector<uint32_t> window = this->window(index);
  return std::count_if(window.begin() + 1, window.end(),
                       [](uint32_t token) { return (token & kPromptBit) == 0; });
}

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
  std::vector<int64_t> sequences;
  for (int64_t i = 0; i < count; ++i) sequences.push_back(sequence_index(sample + i));
  return of(std::move(sequences));
}

int64_t BatchSource::learned_tokens(int64_t sample, int64_t count) const {
  int64_t tokens = 0;
  for (int64_t i = 0; i < count; ++i) tokens += sequences_.learned_tokens(sequence_index(sample + i));
  return tokens;
}

std::optional<int64_t> BatchSource::first_learned(int64_t sample, int64_t count) const {
  const int64_t end =
      sample + std::min(count, 2 * sequences_.size());  // that is an epoch, wherever it begins
  for (; sample < end; ++sample)
    if (sequences_.learned_tokens(sequence_index(sample)) > 0) return sample;
  return std::nullopt;
}

Batch BatchSource::of(std::vector<int64_t> sequences) const {
  const auto length = sequences_.sequence_length();
  const auto count = std::ssize(sequences);
  Batch batch{at::empty({count, length}, at::kLong), at::empty({count, length}, at::kLong),
              std::move(sequences)};
  const auto row = [&](const at::Tensor& tensor, int64_t i) {
    return std::span(tensor.data_ptr<int64_t>() + i * length, static_cast<size_t>(length));
  };
  for (int64_t i = 0; i < count; ++i)
    sequences_.copy(batch.sequences[static_cast<size_t>(i)], row(batch.inputs, i), row(batch.targets, i));
  return batch;
}

}  // namespace ee::data
