#include "bpe_model.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "added_tokens.h"
#include "byte_alphabet.h"
#include "ee/base/error.h"
#include "ee/base/hash.h"
#include "utf8.h"

namespace ee::tokenizer {
namespace {

using base::UserError;

void refuse_unsupported(const nlohmann::json& model, const std::string& where) {
  const std::string type = model.value("type", "BPE");
  if (type != "BPE") throw UserError("{}: the model type {} is not supported (expected BPE)", where, type);
  if (const auto dropout = model.find("dropout");
      dropout != model.end() && dropout->is_number() && *dropout != 0) {
    throw UserError("{}: model.dropout {} is not supported (ids would be random)", where, dropout->dump());
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto value = model.find(key);
    if (value != model.end() && value->is_string() && !value->get<std::string>().empty()) {
      throw UserError("{}: model.{} '{}' is not supported", where, key, value->get<std::string>());
    }
  }
}

// The heap's order: its front is the pair with the least rank, of several the leftmost.
constexpr auto kComesLater = [](const auto& a, const auto& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.place > b.place;
};

uint64_t pair_key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

BpeModel::BpeModel(const nlohmann::json& model, Alphabet alphabet, const std::string& where)
    : alphabet_(alphabet) {
  refuse_unsupported(model, where);
  read_vocabulary(model.at("vocab"), where);
  read_merges(model.at("merges"), where);
  if (model.value("byte_fallback", false)) read_fallback();
  ignore_merges_ = model.value("ignore_merges", false);
  fuse_unknown_ = model.value("fuse_unk", false);
  if (const auto unknown = model.find("unk_token"); unknown != model.end() && unknown->is_string()) {
    unknown_ = id_of_spelling(unknown->get<std::string>());
    if (!unknown_) {
      throw UserError("{}: model.unk_token {} is not in the vocabulary", where, unknown->get<std::string>());
    }
  }
}

void BpeModel::read_vocabulary(const nlohmann::json& vocabulary, const std::string& where) {
  if (!vocabulary.is_object() || vocabulary.empty()) {
    throw UserError("{}: model.vocab should be a non-empty object of token to id", where);
  }
  for (const auto& [spelling, value] : vocabulary.items()) {
    const int64_t id = value.get<int64_t>();
    if (id < 0 || id >= kMostTokens)
      throw UserError("{}: token '{}' has the impossible id {}", where, spelling, id);
    if (id >= size()) bytes_.resize(static_cast<std::size_t>(id) + 1);
    std::string& bytes = bytes_[static_cast<std::size_t>(id)];
    if (!bytes.empty()) throw UserError("{}: id {} belongs to two tokens, '{}' is one", where, id, spelling);
    const auto unspelled = from_spelling(spelling);
    bytes = unspelled.value_or(spelling);
    (unspelled ? ids_ : ids_of_other_spellings_).emplace(bytes, static_cast<int32_t>(id));
    if (unspelled && bytes.size() == 1) byte_ids_[static_cast<uint8_t>(bytes[0])] = static_cast<int32_t>(id);
  }
}

void BpeModel::read_fallback() {
  if (alphabet_ == Alphabet::bytes) return;  // every byte has its own spelling
  fallback_ids_.reserve(256);
  for (int byte = 0; byte < 256; ++byte) {
    fallback_ids_.push_back(id_of_bytes(fmt::format("<0x{:02X}>", byte)).value_or(-1));
  }
}

std::optional<std::string> BpeModel::from_spelling(std::string_view spelling) const {
  return alphabet_ == Alphabet::bytes ? unspell_bytes(spelling) : std::optional<std::string>(spelling);
}

void BpeModel::read_merges(const nlohmann::json& merges, const std::string& where) {
  merges_.reserve(merges.size());
  int32_t rank = 0;
  for (const auto& merge : merges) {
    std::string left, right;
    if (merge.is_string()) {
      const std::string text = merge.get<std::string>();
      const std::size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        throw UserError("{}: merge {} '{}' should be two tokens with a space between", where, rank, text);
      }
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else {
      if (merge.size() != 2)
        throw UserError("{}: merge {} should be a pair, is {}", where, rank, merge.dump());
      left = merge.at(0).get<std::string>();
      right = merge.at(1).get<std::string>();
    }
    const auto left_id = id_of_spelling(left), right_id = id_of_spelling(right),
               id = id_of_spelling(left + right);
    if (!left_id || !right_id || !id) {
      throw UserError("{}: merge {} ('{}' + '{}') names a token that is not in the vocabulary", where, rank,
                      left, right);
    }
    merges_.insert_or_assign(pair_key(*left_id, *right_id), Merge{rank, *id});
    ++rank;
  }
}

std::optional<int32_t> BpeModel::id_of_bytes(std::string_view bytes) const {
  const auto found = ids_.find(bytes);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<int32_t> BpeModel::id_of_spelling(std::string_view spelling) const {
  if (const auto bytes = from_spelling(spelling)) return id_of_bytes(*bytes);
  const auto found = ids_of_other_spellings_.find(spelling);
  return found == ids_of_other_spellings_.end() ? std::nullopt : std::optional(found->second);
}

const BpeModel::Merge* BpeModel::find_merge(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void BpeModel::add_symbol(int32_t id, std::vector<Scratch::Symbol>& symbols) {
  const auto place = static_cast<int32_t>(symbols.size());
  symbols.push_back({.id = id, .previous = place - 1, .next = place + 1, .gone = false});
}

void BpeModel::fill_bytes(std::string_view word, std::vector<Scratch::Symbol>& symbols) const {
  bool after_unknown = false;
  for (const char byte : word) {
    int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
    const bool missing = id < 0;
    // As Hugging Face does: without an unknown token, a byte that the vocabulary lacks is dropped.
    if (missing && unknown_ && !(after_unknown && fuse_unknown_)) id = *unknown_;
    after_unknown = missing;
    if (id >= 0) add_symbol(id, symbols);
  }
}

void BpeModel::fill_characters(std::string_view word, std::vector<Scratch::Symbol>& symbols) const {
  bool after_unknown = false;
  const auto fallback = [&](char byte) { return fallback_ids_[static_cast<uint8_t>(byte)]; };
  for (std::size_t length = 0; !word.empty(); word.remove_prefix(length)) {
    length = decode_utf8(word).length;
    const std::string_view character = word.substr(0, length);
    const int32_t single = length == 1 ? byte_ids_[static_cast<uint8_t>(word[0])] : -1;
    if (const auto id = single >= 0 ? single : id_of_bytes(character).value_or(-1); id >= 0) {
      add_symbol(id, symbols);
      after_unknown = false;
    } else if (!fallback_ids_.empty() &&
               std::ranges::all_of(character, [&](char byte) { return fallback(byte) >= 0; })) {
      for (const char byte : character) add_symbol(fallback(byte), symbols);
      after_unknown = false;
    } else {
      // Dropped without an unknown token, as above.
      if (unknown_ && !(after_unknown && fuse_unknown_)) add_symbol(*unknown_, symbols);
      after_unknown = true;
    }
  }
}

// Puts the pair that begins at `place` into the queue, if it merges.
void BpeModel::offer(Scratch& scratch, int32_t place) const {
  if (place < 0) return;
  const Scratch::Symbol& left = scratch.symbols[static_cast<std::size_t>(place)];
  if (left.next < 0) return;
  const Merge* merge = find_merge(left.id, scratch.symbols[static_cast<std::size_t>(left.next)].id);
  if (merge == nullptr) return;
  scratch.queue.push_back({.rank = merge->rank, .place = place, .id = merge->id});
  std::push_heap(scratch.queue.begin(), scratch.queue.end(), kComesLater);
}

void BpeModel::merge_all(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& queue = scratch.queue;
  queue.clear();
  for (std::size_t place = 0; place < symbols.size(); ++place) offer(scratch, static_cast<int32_t>(place));
  while (!queue.empty()) {
    const Scratch::Candidate best = queue.front();
    std::pop_heap(queue.begin(), queue.end(), kComesLater);
    queue.pop_back();
    Scratch::Symbol& left = symbols[static_cast<std::size_t>(best.place)];
    if (left.gone || left.next < 0) continue;
    Scratch::Symbol& right = symbols[static_cast<std::size_t>(left.next)];
    const Merge* merge = find_merge(left.id, right.id);
    if (merge == nullptr || merge->id != best.id) continue;  // its parts were merged otherwise meanwhile
    left.id = best.id;
    left.next = right.next;
    right.gone = true;
    if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = best.place;
    offer(scratch, left.previous);
    offer(scratch, best.place);
  }
}

void BpeModel::encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    if (const auto whole = id_of_bytes(word)) {
      ids.push_back(*whole);
      return;
    }
  }
  scratch.symbols.clear();
  alphabet_ == Alphabet::bytes ? fill_bytes(word, scratch.symbols) : fill_characters(word, scratch.symbols);
  if (!scratch.symbols.empty()) scratch.symbols.back().next = -1;
  merge_all(scratch);
  for (const auto& symbol : scratch.symbols) {
    if (!symbol.gone) ids.push_back(symbol.id);
  }
}

void BpeModel::hash_into(base::Hasher& hasher) const {
  for (int64_t id = 0; id < size(); ++id) {
    const auto it = ids_.find(bytes(id));
    // An entry outside the byte alphabet never comes out of merging, and its text is an added token's matter.
    if (it != ids_.end()) hasher.update(fmt::format("{} {} {}\n", id, bytes(id).size(), bytes(id)));
  }
  std::vector<std::pair<int32_t, uint64_t>> ordered;  // (rank, pair)
  ordered.reserve(merges_.size());
  for (const auto& [pair, merge] : merges_) ordered.emplace_back(merge.rank, pair);
  std::sort(ordered.begin(), ordered.end());
  for (const auto& [rank, pair] : ordered) {
    hasher.update(std::as_bytes(std::span(&pair, 1)));
  }
  hasher.update(fmt::format("{} {} {}\n", unknown_.value_or(-1), fuse_unknown_, ignore_merges_));
  if (!fallback_ids_.empty()) hasher.update("byte fallback\n");
}

}  // namespace ee::tokenizer
