#include "nfc.h"

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "utf8.h"

namespace ee::tokenizer {
namespace {

struct Decomposition {
  uint32_t code, first, second;  // second 0: a singleton
  uint32_t composes;             // whether first + second compose to `code` again
};
struct CombiningClass {
  uint32_t first, last, value;  // inclusive range
};

#include "nfc_tables.inc"

// Hangul syllables compose by arithmetic (Unicode 15, section 3.12).
constexpr uint32_t kSyllables = 0xAC00, kLeads = 0x1100, kVowels = 0x1161, kTails = 0x11A7;
constexpr uint32_t kLeadCount = 19, kVowelCount = 21, kTailCount = 28;
constexpr uint32_t kSyllableCount = kLeadCount * kVowelCount * kTailCount;

uint32_t combining_class(uint32_t code) {
  const auto* range = std::lower_bound(std::begin(kCombiningClasses), std::end(kCombiningClasses), code,
                                       [](const CombiningClass& r, uint32_t c) { return r.last < c; });
  return range != std::end(kCombiningClasses) && range->first <= code ? range->value : 0;
}

void decompose(uint32_t code, std::vector<uint32_t>& codes) {
  if (code - kSyllables < kSyllableCount) {
    const uint32_t index = code - kSyllables;
    codes.push_back(kLeads + index / (kVowelCount * kTailCount));
    codes.push_back(kVowels + index / kTailCount % kVowelCount);
    if (index % kTailCount != 0) codes.push_back(kTails + index % kTailCount);
    return;
  }
  const auto* found = std::lower_bound(std::begin(kDecompositions), std::end(kDecompositions), code,
                                       [](const Decomposition& d, uint32_t c) { return d.code < c; });
  if (found == std::end(kDecompositions) || found->code != code) {
    codes.push_back(code);
    return;
  }
  decompose(found->first, codes);
  if (found->second != 0) decompose(found->second, codes);
}

uint32_t compose(uint32_t first, uint32_t second) {  // 0: they do not
  if (first - kLeads < kLeadCount && second - kVowels < kVowelCount) {
    return kSyllables + ((first - kLeads) * kVowelCount + (second - kVowels)) * kTailCount;
  }
  if (first - kSyllables < kSyllableCount && (first - kSyllables) % kTailCount == 0 &&
      second - kTails - 1 < kTailCount - 1) {
    return first + (second - kTails);
  }
  static const auto pairs = [] {
    std::unordered_map<uint64_t, uint32_t> map;
    for (const Decomposition& d : kDecompositions) {
      if (d.composes != 0) map.emplace(uint64_t{d.first} << 32 | d.second, d.code);
    }
    return map;
  }();
  const auto found = pairs.find(uint64_t{first} << 32 | second);
  return found == pairs.end() ? 0 : found->second;
}

// Within each run of combining characters, stable order by class.
void reorder(std::vector<uint32_t>& codes) {
  for (std::size_t i = 0; i < codes.size();) {
    std::size_t end = i;
    while (end < codes.size() && combining_class(codes[end]) != 0) ++end;
    std::stable_sort(codes.begin() + static_cast<std::ptrdiff_t>(i),
                     codes.begin() + static_cast<std::ptrdiff_t>(end),
                     [](uint32_t a, uint32_t b) { return combining_class(a) < combining_class(b); });
    i = end + 1;
  }
}

// Joins each starter with the characters behind it that are not blocked from it.
void compose_all(std::vector<uint32_t>& codes) {
  std::size_t written = 0, starter = SIZE_MAX;
  uint32_t last_class = 0;
  for (const uint32_t code : codes) {
    const uint32_t current_class = combining_class(code);
    if (starter != SIZE_MAX) {
      const bool adjacent = written == starter + 1;
      const uint32_t composed = adjacent || last_class < current_class ? compose(codes[starter], code) : 0;
      if (composed != 0) {
        codes[starter] = composed;
        continue;
      }
    }
    if (current_class == 0) starter = written;
    last_class = current_class;
    codes[written++] = code;
  }
  codes.resize(written);
}

}  // namespace

std::string to_nfc(std::string_view text) {
  constexpr uint8_t kLeadOfU0300 = 0xCC;
  const bool simple = std::all_of(text.begin(), text.end(),
                                  [](char byte) { return static_cast<uint8_t>(byte) < kLeadOfU0300; });
  if (simple) return std::string(text);
  std::vector<uint32_t> codes;
  codes.reserve(text.size());
  while (!text.empty()) {
    const Utf8Character character = decode_utf8(text);
    decompose(character.code, codes);
    text.remove_prefix(character.length);
  }
  reorder(codes);
  compose_all(codes);
  std::string composed;
  for (const uint32_t code : codes) append_utf8(code, composed);
  return composed;
}

}  // namespace ee::tokenizer
