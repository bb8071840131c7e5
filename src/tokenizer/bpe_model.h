// The vocabulary and merges of a BPE (`model` of tokenizer.json), and the merging itself.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace ee::base {
class Hasher;
}

namespace ee::tokenizer {

// Lets a map with string keys be asked with a view.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};
template <typename Value>
using StringMap = std::unordered_map<std::string, Value, StringHash, std::equal_to<>>;

// How a vocabulary spells its tokens, and what a word is taken apart into before merging.
enum class Alphabet {
  bytes,      // byte-level BPE: a printable character for each byte (byte_alphabet.h)
  characters  // SentencePiece's kind: text itself; a character that the vocabulary lacks may become "<0xHH>"
              // tokens
};

class BpeModel {
 public:
  BpeModel(const nlohmann::json& model, Alphabet alphabet, const std::string& where);

  // Reused from word to word, so that merging allocates nothing. One a thread.
  class Scratch {
    friend class BpeModel;
    struct Symbol {
      int32_t id, previous, next;  // places in `symbols`, -1: none
      bool gone;                   // merged into the one before it
    };
    struct Candidate {
      int32_t rank, place, id;  // the pair at `place` and behind it would become `id`
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> queue;  // a heap: least rank first, then leftmost
  };

  // Appends the ids of one word (raw bytes, valid UTF-8 if the alphabet is `characters`).
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;

  // Bytes of a token; its spelling in the vocabulary if the alphabet is `characters` or the spelling is not
  // in the byte alphabet; "" if there is none.
  const std::string& bytes(int64_t id) const { return bytes_.at(static_cast<std::size_t>(id)); }
  std::optional<int32_t> id_of_bytes(std::string_view bytes) const;
  std::optional<int32_t> id_of_spelling(std::string_view spelling) const;
  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }  // 1 + largest id
  void hash_into(base::Hasher& hasher) const;

 private:
  struct Merge {
    int32_t rank = 0, id = -1;
  };

  void read_vocabulary(const nlohmann::json& vocabulary, const std::string& where);
  void read_merges(const nlohmann::json& merges, const std::string& where);
  const Merge* find_merge(int32_t left, int32_t right) const;
  void read_fallback();
  std::optional<std::string> from_spelling(std::string_view spelling) const;
  void fill_bytes(std::string_view word, std::vector<Scratch::Symbol>& symbols) const;
  void fill_characters(std::string_view word, std::vector<Scratch::Symbol>& symbols) const;
  static void add_symbol(int32_t id, std::vector<Scratch::Symbol>& symbols);
  void offer(Scratch& scratch, int32_t place) const;
  void merge_all(Scratch& scratch) const;

  Alphabet alphabet_;
  std::vector<std::string> bytes_;                                 // by id
  StringMap<int32_t> ids_;                                         // by bytes
  StringMap<int32_t> ids_of_other_spellings_;                      // outside the byte alphabet
  std::unordered_map<uint64_t, Merge> merges_;                     // left << 32 | right
  std::vector<int32_t> byte_ids_ = std::vector<int32_t>(256, -1);  // -1: the vocabulary lacks this byte
  std::vector<int32_t>
      fallback_ids_;                // of "<0x00>" to "<0xFF>", -1: the vocabulary lacks it. Empty: not used
  std::optional<int32_t> unknown_;  // for bytes or characters that the vocabulary lacks
  bool fuse_unknown_ = false;       // one for a run of them
  bool ignore_merges_ = false;      // a word in the vocabulary is its own token
};

}  // namespace ee::tokenizer
