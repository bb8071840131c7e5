// The merges that a vocabulary with scores stands for. SentencePiece keeps none: any two neighbours may merge
// into a piece of the vocabulary, the piece with the best score first. BPE as tokenizer.json has it needs
// them listed.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace ee::tokenizer {

struct Piece {
  std::string text;
  double score = 0;
  bool merges = true;  // may be a part or a result of a merge
};

// The order decides between pieces of equal score and between ways to make one piece. Each is transformers
// 5's in one place; they differ for runs of spaces and the like.
enum class MergeOrder {
  by_id,            // a tokenizer.model read by the Llama class: scores are not looked at
  by_score,         // a tokenizer.model read by its own settings
  by_score_longest  // a vocabulary from a GGUF file: of one piece's ways, the longest left part first
};

// In order of rank. `pieces` are in order of their ids; of two with the same text the later counts.
std::vector<std::pair<std::string, std::string>> piece_merges(const std::vector<Piece>& pieces,
                                                              MergeOrder order);

}  // namespace ee::tokenizer
