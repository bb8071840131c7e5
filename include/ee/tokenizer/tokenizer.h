// Text <-> token ids, equal to transformers 5's: byte-level BPE and SentencePiece's BPE.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ee/tokenizer/chat.h"

namespace ee::tokenizer {

class Tokenizer {
 public:
  // Reads tokenizer.json or else tokenizer.model (SentencePiece), tokenizer_config.json, config.json's
  // model_type, the chat template. UserError: none there, a feature that is not supported (named), broken
  // file.
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& folder);
  virtual ~Tokenizer() = default;

  // Special tokens written out in the text ("<|im_start|>") become their ids unless `parse_special` is false.
  // Adds no BOS/EOS by itself. Broken UTF-8 is read as U+FFFD, one for each maximal subpart, as Python's
  // errors="replace" gives Hugging Face's tokenizers. Thread-safe; threads share no lock while they encode.
  virtual std::vector<int64_t> encode(std::string_view text, bool parse_special = true) const = 0;

  // The bytes of one token (not always whole UTF-8 characters). Special tokens give "" unless `keep_special`;
  // so does an id that no token has.
  virtual std::string token_bytes(int64_t token, bool keep_special = false) const = 0;
  virtual int64_t vocab_size() const = 0;       // 1 + largest id
  virtual std::string fingerprint() const = 0;  // of everything that changes ids: keys the token cache

  // Valid UTF-8: sequences that the tokens leave broken become U+FFFD. SentencePiece's space before the first
  // word is dropped.
  std::string decode(const std::vector<int64_t>& tokens, bool keep_special = false) const;
  std::optional<int64_t> bos() const {
    return bos_;
  }  // if the model has one; put it in front only if adds_bos()
  std::optional<int64_t> eos() const { return eos_; }
  bool adds_bos() const { return adds_bos_; }  // whether a text starts with BOS
  bool adds_eos() const { return adds_eos_; }  // whether a whole text ends with EOS; a prompt never does
  const ChatTemplate& chat_template() const { return chat_template_; }
  // Of one token's text (" the", "<|im_end|>"), special or not.
  virtual std::optional<int64_t> token_id(std::string_view token) const = 0;

 protected:
  std::optional<int64_t> bos_, eos_;
  bool adds_bos_ = false, adds_eos_ = false;
  bool drops_first_space_ = false;   // when decoding
  bool drops_first_spaces_ = false;  // all that the first token begins with
  ChatTemplate chat_template_;
};

// Holds bytes back until they are whole UTF-8 characters: feed it token_bytes() while streaming. What it
// gives is valid UTF-8: bytes that no continuation could complete come out as U+FFFD at once.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);  // what can be printed now
  std::string finish();                      // the rest, incomplete sequences as U+FFFD

 private:
  std::string pending_;
};

}  // namespace ee::tokenizer
