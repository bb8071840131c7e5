#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "gguf_vocabulary.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using format::GgufFile;
using nlohmann::ordered_json;

// The few kinds of protobuf fields that sentencepiece_model.proto needs here.
class ProtoMessage {
 public:
  ProtoMessage& number(int field, int64_t value) {
    tag(field, 0);
    varint(static_cast<uint64_t>(value));
    return *this;
  }
  ProtoMessage& real(int field, float value) {
    tag(field, 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes_.push_back(static_cast<char>(bits >> shift & 0xFF));
    return *this;
  }
  ProtoMessage& text(int field, std::string_view value) {
    tag(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  ProtoMessage& message(int field, const ProtoMessage& value) { return text(field, value.bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  void tag(int field, int kind) { varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(kind)); }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }

  std::string bytes_;
};

bool flag(const GgufFile& file, const char* key, bool otherwise) {
  const bool* value = file.find<bool>(key);
  return value != nullptr ? *value : otherwise;
}

// TrainerSpec: what the library needs at run time.
ProtoMessage trainer_spec(const GgufFile& file, const GgufVocabulary& vocabulary) {
  constexpr int kModelType = 3, kBpe = 2, kVocabSize = 4, kByteFallback = 35, kFirstId = 40;
  ProtoMessage spec;
  spec.number(kModelType, kBpe).number(kVocabSize, static_cast<int64_t>(vocabulary.tokens.size()));
  spec.number(kByteFallback, std::find(vocabulary.types.begin(), vocabulary.types.end(), kGgufByte) !=
                                 vocabulary.types.end());
  int field = kFirstId;  // unk_id, bos_id, eos_id, pad_id
  for (const char* name : {"unknown", "bos", "eos", "padding"}) {
    spec.number(field++, vocabulary.role_id(file, name).value_or(-1));
  }
  return spec;
}

ProtoMessage normalizer_spec(const GgufFile& file) {
  constexpr int kName = 1, kAddDummyPrefix = 3, kRemoveExtraWhitespaces = 4, kEscapeWhitespaces = 5;
  ProtoMessage spec;
  spec.text(kName, "identity");
  spec.number(kAddDummyPrefix, flag(file, "tokenizer.ggml.add_space_prefix", true));
  spec.number(kRemoveExtraWhitespaces, flag(file, "tokenizer.ggml.remove_extra_whitespaces", false));
  return spec.number(kEscapeWhitespaces, 1);
}

std::string model_bytes(const GgufFile& file, const GgufVocabulary& vocabulary) {
  constexpr int kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3;
  constexpr int kPiece = 1, kScore = 2, kType = 3;
  const auto& scores = file.get<std::vector<double>>("tokenizer.ggml.scores");
  if (scores.size() != vocabulary.tokens.size()) {
    throw UserError("{}: tokenizer.ggml.scores has {} entries, tokenizer.ggml.tokens {}",
                    file.path().string(), scores.size(), vocabulary.tokens.size());
  }
  ProtoMessage model;
  for (std::size_t id = 0; id < scores.size(); ++id) {
    ProtoMessage piece;
    piece.text(kPiece, vocabulary.tokens[id]).real(kScore, static_cast<float>(scores[id]));
    model.message(kPieces, piece.number(kType, vocabulary.types[id]));
  }
  model.message(kTrainerSpec, trainer_spec(file, vocabulary)).message(kNormalizerSpec, normalizer_spec(file));
  return model.bytes();
}

ordered_json added_tokens(const GgufVocabulary& vocabulary) {
  ordered_json decoder = ordered_json::object();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const int64_t type = vocabulary.types[id];
    if (type != kGgufControl && type != kGgufUnknown && type != kGgufUserDefined) continue;
    decoder[std::to_string(id)] = {{"content", vocabulary.tokens[id]},
                                   {"lstrip", false},
                                   {"normalized", false},
                                   {"rstrip", false},
                                   {"single_word", false},
                                   {"special", type != kGgufUserDefined}};
  }
  return decoder;
}

}  // namespace

void write_gguf_sentencepiece(const GgufFile& file, const GgufVocabulary& vocabulary,
                              const std::filesystem::path& folder) {
  base::write_file_atomically(folder / "tokenizer.model", model_bytes(file, vocabulary));
  ordered_json config = {{"tokenizer_class", "LlamaTokenizer"},
                         {"add_bos_token", flag(file, "tokenizer.ggml.add_bos_token", true)},
                         {"add_eos_token", false},
                         {"add_prefix_space", flag(file, "tokenizer.ggml.add_space_prefix", true)},
                         {"legacy", false},
                         {"clean_up_tokenization_spaces", false},
                         {"added_tokens_decoder", added_tokens(vocabulary)}};
  write_gguf_tokenizer_config(file, vocabulary, std::move(config), folder);
}

}  // namespace ee::tokenizer
