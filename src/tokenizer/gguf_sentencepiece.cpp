#include <algorithm>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "gguf_vocabulary.h"
#include "piece_merges.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using format::GgufFile;
using nlohmann::ordered_json;

constexpr const char* kVisibleSpace = "\u2581";

bool flag(const GgufFile& file, const char* key, bool otherwise) {
  const bool* value = file.find<bool>(key);
  return value != nullptr ? *value : otherwise;
}

ordered_json replace(const char* pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", {{"String", pattern}}}, {"content", content}};
}

// As llama.cpp: every section of text gets a space in front, also one that begins with a space.
ordered_json normalizer_json(bool space_prefix) {
  if (!space_prefix) return replace(" ", kVisibleSpace);
  return {{"type", "Sequence"},
          {"normalizers",
           {ordered_json{{"type", "Prepend"}, {"prepend", kVisibleSpace}}, replace(" ", kVisibleSpace)}}};
}

ordered_json decoder_json(bool space_prefix) {
  ordered_json steps =
      ordered_json::array({replace(kVisibleSpace, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (space_prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

// Pieces for text, not those that stand for a role or a byte.
bool merges(int64_t type) { return type != kGgufUnknown && type != kGgufControl && type != kGgufByte; }

std::vector<std::pair<std::string, std::string>> merges_by_score(const GgufFile& file,
                                                                 const GgufVocabulary& vocabulary) {
  const auto& scores = file.get<std::vector<double>>("tokenizer.ggml.scores");
  if (scores.size() != vocabulary.tokens.size()) {
    throw UserError("{}: tokenizer.ggml.scores has {} entries, tokenizer.ggml.tokens {}",
                    file.path().string(), scores.size(), vocabulary.tokens.size());
  }
  std::vector<Piece> pieces;
  pieces.reserve(scores.size());
  for (std::size_t id = 0; id < scores.size(); ++id) {
    pieces.push_back({vocabulary.tokens[id], scores[id], merges(vocabulary.types[id])});
  }
  return piece_merges(pieces, MergeOrder::by_score_longest);
}

ordered_json model_json(const GgufVocabulary& vocabulary,
                        const std::vector<std::pair<std::string, std::string>>& merges) {
  ordered_json model = bpe_model_json(vocabulary, merges);
  const auto unknown = std::ranges::find(vocabulary.types, kGgufUnknown);
  if (unknown != vocabulary.types.end()) {
    model["unk_token"] = vocabulary.tokens[static_cast<std::size_t>(unknown - vocabulary.types.begin())];
  }
  model["fuse_unk"] = true;
  model["byte_fallback"] = std::ranges::count(vocabulary.types, kGgufByte) > 0;
  return model;
}

}  // namespace

void write_gguf_sentencepiece(const GgufFile& file, const GgufVocabulary& vocabulary,
                              const std::filesystem::path& folder) {
  if (flag(file, "tokenizer.ggml.remove_extra_whitespaces", false)) {
    throw UserError("{}: tokenizer.ggml.remove_extra_whitespaces true is not supported",
                    file.path().string());
  }
  const bool space_prefix = flag(file, "tokenizer.ggml.add_space_prefix", true);
  write_gguf_tokenizer(file, vocabulary,
                       {.normalizer = normalizer_json(space_prefix),
                        .pre_tokenizer = nullptr,
                        .decoder = decoder_json(space_prefix),
                        .model = model_json(vocabulary, merges_by_score(file, vocabulary)),
                        .adds_bos = true},
                       folder);
}

void write_gguf_gemma4(const GgufFile& file, const GgufVocabulary& vocabulary,
                       const std::filesystem::path& folder) {
  write_gguf_tokenizer(file, vocabulary,
                       {.normalizer = normalizer_json(false),
                        .pre_tokenizer = nullptr,
                        .decoder = decoder_json(false),
                        .model = model_json(vocabulary, gguf_merges(file)),
                        .adds_bos = true},
                       folder);
}

}  // namespace ee::tokenizer
