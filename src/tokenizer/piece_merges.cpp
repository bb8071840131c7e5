#include "piece_merges.h"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <unordered_map>

#include "utf8.h"

namespace ee::tokenizer {
namespace {

using Ids = std::unordered_map<std::string_view, std::size_t>;

struct Merge {
  std::size_t id;           // of the result
  double score;             // of the result
  std::size_t left_length;  // in characters
  std::size_t split;        // bytes of the left part
};

Ids merging_pieces(const std::vector<Piece>& pieces) {
  Ids ids;
  ids.reserve(pieces.size());
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].merges) ids.insert_or_assign(pieces[id].text, id);
  }
  return ids;
}

bool comes_first(const Merge& a, const Merge& b, MergeOrder order) {
  if (order != MergeOrder::by_id && a.score != b.score) return a.score > b.score;
  if (order == MergeOrder::by_score_longest && a.left_length != b.left_length) {
    return a.left_length > b.left_length;
  }
  return a.id != b.id ? a.id < b.id : a.left_length < b.left_length;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> piece_merges(const std::vector<Piece>& pieces,
                                                              MergeOrder order) {
  const Ids ids = merging_pieces(pieces);
  std::vector<Merge> merges;
  for (const auto& [text, id] : ids) {
    std::size_t split = 0;
    for (std::size_t length = 1; (split += decode_utf8(text.substr(split)).length) < text.size(); ++length) {
      if (!ids.contains(text.substr(0, split)) || !ids.contains(text.substr(split))) continue;
      merges.push_back({.id = id, .score = pieces[id].score, .left_length = length, .split = split});
    }
  }
  std::ranges::sort(merges, [&](const Merge& a, const Merge& b) { return comes_first(a, b, order); });
  std::vector<std::pair<std::string, std::string>> result;
  result.reserve(merges.size());
  for (const Merge& merge : merges) {
    const std::string& text = pieces[merge.id].text;
    result.emplace_back(text.substr(0, merge.split), text.substr(merge.split));
  }
  return result;
}

}  // namespace ee::tokenizer
