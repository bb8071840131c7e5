// Documents to training sequences: split into training and validation, packed, shuffled, all without state.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ee/data/corpus.h"

namespace ee::data {

// A part of one document.
struct Segment {
  int64_t document = 0;
  int64_t begin = 0, end = 0;  // tokens of the document
  bool operator==(const Segment&) const = default;
};

struct Split {
  std::vector<Segment> train, validation;  // each in the order of the corpus
};

std::vector<Segment> whole_documents(const Corpus& corpus);

// Draws documents by `seed` until `fraction` of all tokens are held out. The last one drawn is cut, so that a
// corpus of one document can be split too. fraction in [0, 1).
Split split_documents(const Corpus& corpus, double fraction, uint64_t seed);

inline constexpr int64_t kNoTarget = -100;  // kernels::kIgnoreToken

// Segments joined to one stream, a separator token behind each, cut into windows of sequence_length + 1
// tokens. A window starts with the last token of the one before it, so every token of the stream but the
// first is predicted exactly once (unless it is a prompt's); a rest that does not fill a window is left out.
class PackedSequences {
 public:
  PackedSequences(std::shared_ptr<const Corpus> corpus, std::vector<Segment> segments,
                  int64_t sequence_length, int64_t separator);

  int64_t size() const { return stream_tokens_ > 0 ? (stream_tokens_ - 1) / sequence_length_ : 0; }
  int64_t sequence_length() const { return sequence_length_; }
  int64_t tokens() const { return stream_tokens_; }  // separators included
  int64_t documents() const { return static_cast<int64_t>(segments_.size()); }
  std::string fingerprint() const;  // of all windows

  // Window `index`: sequence_length tokens, and the one behind each; kNoTarget where that is a prompt's.
  void copy(int64_t index, std::span<int64_t> inputs, std::span<int64_t> targets) const;
  // How many of its targets are tokens.
  int64_t learned_tokens(int64_t index) const;

 private:
  std::vector<uint32_t> window(int64_t index) const;  // sequence_length + 1 tokens of the corpus

  std::shared_ptr<const Corpus> corpus_;
  std::vector<Segment> segments_;
  std::vector<int64_t> starts_;  // of each segment in the stream
  int64_t sequence_length_, separator_;
  int64_t stream_tokens_ = 0;
};

// A permutation of 0..size-1 drawn by `key`: a balanced Feistel network with cycle walking, so any element is
// known without computing the others, and the same on every machine.
class Permutation {
 public:
  Permutation(int64_t size, uint64_t key);
  int64_t operator[](int64_t index) const;

 private:
  uint64_t size_, key_;
  int half_bits_;
};

// Mixes two numbers to one that looks random (splitmix64's finalizer): seeds made from seeds.
uint64_t mix_seed(uint64_t seed, uint64_t salt);

struct Batch {
  at::Tensor inputs;                    // [count, sequence_length], i64
  at::Tensor targets;                   // [count, sequence_length], i64: the token behind each, or kNoTarget
  std::vector<int64_t> sequences = {};  // which windows these are
};

// The endless sequence of training samples: epoch after epoch, each in its own order. The number of samples
// taken is all there is to remember.
class BatchSource {
 public:
  // UserError: no sequence at all; `what` names the text in it ("training text").
  BatchSource(PackedSequences sequences, bool shuffle, uint64_t seed, std::string_view what);

  const PackedSequences& sequences() const { return sequences_; }
  int64_t sequence_index(int64_t sample) const;  // which window sample `sample` is
  Batch at(int64_t sample, int64_t count) const;
  // How many targets of at(sample, count) are tokens: what a sum over them is divided by. Reads the text, so
  // every rank knows it of samples that are another's, too.
  int64_t learned_tokens(int64_t sample, int64_t count) const;
  // The first of `count` samples from `sample` on that has a target; nothing: it is all prompts.
  std::optional<int64_t> first_learned(int64_t sample, int64_t count) const;
  Batch of(std::vector<int64_t> sequences) const;  // windows by their index

 private:
  PackedSequences sequences_;
  bool shuffle_;
  uint64_t seed_;
};

}  // namespace ee::data
