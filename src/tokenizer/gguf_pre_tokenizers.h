// llama.cpp's names of pre-tokenizers (tokenizer.ggml.pre) in tokenizer.json's terms.
#pragma once

#include <array>

#include "gguf_vocabulary.h"

namespace ee::tokenizer {

struct PreTokenization {
  const char* name;
  bool single_digits = false;              // every digit is a word, before anything else
  std::array<const char*, 6> splits = {};  // regular expressions, in order, up to the first null
  bool digits_last = false;                // every digit is a word, behind the expressions
  bool gpt2_regex = false;                 // ByteLevel splits by its own expression
  bool nfc = false;                        // the text is normalized first
  bool adds_bos = false;                   // unless tokenizer.ggml.add_bos_token says otherwise
  bool ignore_merges = false;              // a word in the vocabulary is one token whatever the merges say
};

// UserError: a name that is not known; or no name, and the vocabulary does not prove which it is.
const PreTokenization& gguf_pre_tokenization(const format::GgufFile& file);

// `normalizer` and `pre_tokenizer` of tokenizer.json.
nlohmann::ordered_json normalizer_json(const PreTokenization& kind);
nlohmann::ordered_json pre_tokenizer_json(const PreTokenization& kind);

}  // namespace ee::tokenizer
