#include "sentencepiece_model.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "ee/base/error.h"
#include "ee/base/file.h"
#include "piece_merges.h"
#include "protobuf.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using nlohmann::json;

constexpr const char* kVisibleSpace = "\u2581";

enum class PieceType { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

// What of sentencepiece_model.proto bears on ids, with that file's defaults.
struct Model {
  std::vector<Piece> pieces;
  std::vector<PieceType> types;  // one for each piece
  int model_type = 1;            // 1 unigram, 2 BPE
  bool byte_fallback = false;
  int unknown_id = 0, bos_id = 1, eos_id = 2;
  std::string unknown_piece = "<unk>", bos_piece = "<s>", eos_piece = "</s>";
  bool has_character_map = false;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
};

// Calls back for each field; false if the message is broken.
template <typename Visit>
bool each_field(std::string_view message, Visit&& visit) {
  ProtobufFields fields(message);
  for (ProtobufFields::Field field; fields.next(field);) visit(field);
  return !fields.broken();
}

bool read_piece(std::string_view message, Model& model) {
  Piece piece;
  PieceType type = PieceType::normal;
  const bool whole = each_field(message, [&](const auto& field) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2) piece.score = static_cast<double>(field.real());
    if (field.number == 3) type = static_cast<PieceType>(field.integer());
  });
  model.pieces.push_back(std::move(piece));
  model.types.push_back(type);
  return whole;
}

bool read_trainer_spec(std::string_view message, Model& model) {
  return each_field(message, [&](const auto& field) {
    switch (field.number) {
      case 3:
        model.model_type = field.integer();
        break;
      case 35:
        model.byte_fallback = field.flag();
        break;
      case 40:
        model.unknown_id = field.integer();
        break;
      case 41:
        model.bos_id = field.integer();
        break;
      case 42:
        model.eos_id = field.integer();
        break;
      case 45:
        model.unknown_piece = field.bytes;
        break;
      case 46:
        model.bos_piece = field.bytes;
        break;
      case 47:
        model.eos_piece = field.bytes;
        break;
    }
  });
}

bool read_normalizer_spec(std::string_view message, Model& model) {
  return each_field(message, [&](const auto& field) {
    if (field.number == 2) model.has_character_map = !field.bytes.empty();
    if (field.number == 3) model.add_dummy_prefix = field.flag();
    if (field.number == 4) model.remove_extra_whitespaces = field.flag();
    if (field.number == 5) model.escape_whitespaces = field.flag();
  });
}

Model read_model(const std::filesystem::path& path) {
  const std::string bytes = base::read_text_file(path);
  Model model;
  bool whole = true;
  whole &= each_field(bytes, [&](const auto& field) {
    if (field.number == 1) whole &= read_piece(field.bytes, model);
    if (field.number == 2) whole &= read_trainer_spec(field.bytes, model);
    if (field.number == 3) whole &= read_normalizer_spec(field.bytes, model);
  });
  if (!whole || model.pieces.empty()) {
    throw UserError("{} is not a SentencePiece model (or not all of one)", path.string());
  }
  if (model.model_type != 2) {
    throw UserError("{} is a SentencePiece model of type {}, which is not supported (expected BPE)",
                    path.string(), model.model_type == 1 ? "unigram" : std::to_string(model.model_type));
  }
  return model;
}

json model_json(const Model& model, MergeOrder order) {
  json vocabulary = json::object();
  for (std::size_t id = 0; id < model.pieces.size(); ++id) vocabulary[model.pieces[id].text] = id;
  return {{"type", "BPE"}, {"vocab", std::move(vocabulary)}, {"merges", piece_merges(model.pieces, order)}};
}

json added_tokens(const Model& model, bool user_defined_too) {
  json list = json::array();
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const bool control = model.types[id] == PieceType::control;
    if (!control && !(user_defined_too && model.types[id] == PieceType::user_defined)) continue;
    list.push_back(
        {{"id", id}, {"content", model.pieces[id].text}, {"special", control}, {"normalized", false}});
  }
  return list;
}

// Placeholders that added_tokens_decoder gives another text, unless that text is a piece of its own.
void rename_pieces(const TokenizerConfig& config, Model& model) {
  std::unordered_map<std::size_t, std::string> names;
  for (const AddedToken& token : config.added_tokens) {
    if (token.id >= 0) names.emplace(static_cast<std::size_t>(token.id), token.content);
  }
  std::unordered_set<std::string> kept;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    if (!names.contains(id)) kept.insert(model.pieces[id].text);
  }
  for (const auto& [id, name] : names) {
    if (id < model.pieces.size() && !kept.contains(name)) model.pieces[id].text = name;
  }
}

json replace(const char* kind, const char* pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
}

json own_normalizer(const Model& model, bool legacy) {
  json steps = json::array();
  if (model.remove_extra_whitespaces) {
    steps.push_back(replace("Regex", R"(\A +| +\z)", ""));
    steps.push_back(replace("Regex", " {2,}", " "));
  }
  if (model.escape_whitespaces) steps.push_back(replace("String", " ", kVisibleSpace));
  // SentencePiece's space in front comes in any case, Metaspace's only where there is none.
  if (model.add_dummy_prefix && legacy) steps.push_back(replace("Regex", "\\A\u2581", "\u2581\u2581"));
  return {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
}

// A regular expression that finds the longest of the user-defined pieces; "" if there are none.
std::string user_defined_pattern(const Model& model) {
  std::vector<std::string> texts;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    if (model.types[id] == PieceType::user_defined) texts.push_back(model.pieces[id].text);
  }
  std::ranges::stable_sort(texts, [](const auto& a, const auto& b) { return a.size() > b.size(); });
  std::string pattern;
  for (const std::string& text : texts) {
    if (!pattern.empty()) pattern += '|';
    for (const char byte : text) {
      if (std::ispunct(static_cast<unsigned char>(byte))) pattern += '\\';
      pattern += byte;
    }
  }
  return pattern;
}

json own_pre_tokenizer(const Model& model, bool legacy, const std::string& user_defined) {
  json steps = json::array();
  if (model.add_dummy_prefix) {
    steps.push_back({{"type", "Metaspace"},
                     {"replacement", kVisibleSpace},
                     {"prepend_scheme", legacy ? "always" : "first"},
                     {"split", false}});
  }
  if (!user_defined.empty()) {
    steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", user_defined}}}, {"behavior", "Isolated"}});
  }
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

json own_decoder(const Model& model) {
  json steps = json::array({replace("String", kVisibleSpace, " ")});
  if (model.byte_fallback) steps.push_back({{"type", "ByteFallback"}});
  steps.push_back({{"type", "Fuse"}});
  if (model.add_dummy_prefix) {
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

void name_roles(const Model& model, TokenizerConfig& config) {
  if (model.bos_id >= 0) config.roles.try_emplace("bos_token", model.bos_piece);
  if (model.eos_id >= 0) config.roles.try_emplace("eos_token", model.eos_piece);
  if (model.unknown_id >= 0) config.roles.try_emplace("unk_token", model.unknown_piece);
}

json describe_by_own_settings(const std::filesystem::path& path, Model model, TokenizerConfig& config) {
  if (model.has_character_map) {
    throw UserError(
        "{} has a table that rewrites characters (precompiled_charsmap), which is not supported; a "
        "tokenizer.json "
        "without a normalizer of type Precompiled would be",
        path.string());
  }
  rename_pieces(config, model);
  name_roles(model, config);
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    model.pieces[id].merges = model.types[id] == PieceType::normal;
  }
  for (AddedToken& token : config.added_tokens) token.normalized &= !model.add_dummy_prefix;
  const bool legacy = config.legacy.value_or(true);
  const std::string user_defined = user_defined_pattern(model);
  json description = {{"added_tokens", added_tokens(model, false)},
                      {"normalizer", own_normalizer(model, legacy)},
                      {"pre_tokenizer", own_pre_tokenizer(model, legacy, user_defined)},
                      {"decoder", own_decoder(model)},
                      {"model", model_json(model, MergeOrder::by_score)}};
  json& bpe = description["model"];
  bpe["byte_fallback"] = model.byte_fallback;
  bpe["fuse_unk"] = true;
  bpe["ignore_merges"] = !user_defined.empty();
  bpe["unk_token"] = bpe["vocab"].contains(model.unknown_piece) ? json(model.unknown_piece) : json();
  return description;
}

}  // namespace

json describe_sentencepiece(const std::filesystem::path& path, TransformersClass which,
                            TokenizerConfig& config) {
  Model model = read_model(path);
  switch (which) {
    case TransformersClass::as_written:
      return describe_by_own_settings(path, std::move(model), config);
    case TransformersClass::llama:
    case TransformersClass::code_llama:
      break;
    default:
      throw UserError(
          "{} is read as a {} by transformers, which does not fit a SentencePiece model; copy the model's "
          "own "
          "tokenizer.json there",
          path.string(), config.model_type == "qwen2" ? "Qwen2Tokenizer" : config.tokenizer_class);
  }
  json description = {{"added_tokens", added_tokens(model, true)},
                      {"model", model_json(model, MergeOrder::by_id)}};
  rebuild_as(which, config, description);
  return description;
}

}  // namespace ee::tokenizer
