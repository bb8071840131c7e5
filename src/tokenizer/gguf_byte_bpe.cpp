#include <nlohmann/json.hpp>

#include "ee/base/error.h"
#include "ee/tokenizer/gguf_tokenizer.h"
#include "gguf_pre_tokenizers.h"
#include "gguf_vocabulary.h"
#include "known_regexes.h"

namespace ee::tokenizer {
using base::UserError;
using format::GgufFile;
using nlohmann::ordered_json;

void check_gguf_model_type(const GgufFile& file, const std::string& model_type) {
  const std::string* pre = file.find<std::string>("tokenizer.ggml.pre");
  const bool fits = file.get<std::string>("tokenizer.ggml.model") == "gpt2" &&
                    gguf_pre_tokenization(file).splits[0] == kQwen2Regex;
  if (model_type != "qwen2" || fits) return;
  throw UserError(
      "{}: the model is a qwen2, whose text is split as tokenizer.ggml.pre 'qwen2' does wherever it is read, "
      "but the "
      "file has tokenizer.ggml.model '{}' and tokenizer.ggml.pre '{}'",
      file.path().string(), file.get<std::string>("tokenizer.ggml.model"), pre != nullptr ? *pre : "");
}

void write_gguf_byte_bpe(const GgufFile& file, const GgufVocabulary& vocabulary,
                         const std::filesystem::path& folder) {
  const PreTokenization& kind = gguf_pre_tokenization(file);
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
