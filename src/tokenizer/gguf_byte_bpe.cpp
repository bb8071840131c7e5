#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "gguf_pre_tokenizers.h"
#include "gguf_vocabulary.h"
#include "known_regexes.h"

namespace ee::tokenizer {
namespace {

using base::UserError;
using format::GgufFile;
using nlohmann::ordered_json;

// transformers reads every model of this architecture by its own class, whatever tokenizer.json says.
void check_architecture(const GgufFile& file, const PreTokenization& kind) {
  const std::string* architecture = file.find<std::string>("general.architecture");
  if (architecture == nullptr || *architecture != "qwen2" || kind.splits[0] == kQwen2Regex) return;
  throw UserError(
      "{}: general.architecture is qwen2 and tokenizer.ggml.pre '{}', but qwen2 models are read with the "
      "pre-tokenizer qwen2",
      file.path().string(), kind.name);
}

}  // namespace

void write_gguf_byte_bpe(const GgufFile& file, const GgufVocabulary& vocabulary,
                         const std::filesystem::path& folder) {
  const PreTokenization& kind = gguf_pre_tokenization(file);
  check_architecture(file, kind);
  ordered_json model = bpe_model_json(vocabulary, gguf_merges(file));
  model["ignore_merges"] = kind.ignore_merges;
  const ordered_json decoder = {
      {"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  write_gguf_tokenizer(file, vocabulary,
                       {.normalizer = normalizer_json(kind),
                        .pre_tokenizer = pre_tokenizer_json(kind),
                        .decoder = decoder,
                        .model = std::move(model),
                        .adds_bos = kind.adds_bos},
                       folder);
}

}  // namespace ee::tokenizer
