// Text <-> token ids, equal to Hugging Face's: byte-level BPE (tokenizer.json) and SentencePiece
// (tokenizer.model).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ee::tokenizer {

class Tokenizer {
 public:
  // Reads tokenizer.json (byte-level BPE) or else tokenizer.model (SentencePiece), tokenizer_config.json,
  // chat_template.jinja. UserError: none there, a feature that is not supported (named), broken file.
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& folder);
  virtual ~Tokenizer() = default;

  // Special tokens written out in the text ("<|im_start|>") become their ids unless `parse_special` is false.
  // Adds no BOS/EOS by itself. Thread-safe.
  virtual std::vector<int64_t> encode(std::string_view text, bool parse_special = true) const = 0;

  // The bytes of one token (not always whole UTF-8 characters). Special tokens give "" unless `keep_special`.
  virtual std::string token_bytes(int64_t token, bool keep_special = false) const = 0;
  virtual int64_t vocab_size() const = 0;       // 1 + largest id
  virtual std::string fingerprint() const = 0;  // of everything that changes ids: keys the token cache

  std::string decode(const std::vector<int64_t>& tokens, bool keep_special = false) const;
  std::optional<int64_t> bos() const { return bos_; }  // set when the tokenizer's own post-processing adds it
  std::optional<int64_t> eos() const { return eos_; }
  bool adds_bos() const { return adds_bos_; }                          // whether a prompt starts with BOS
  const std::string& chat_template() const { return chat_template_; }  // Jinja source, "" if none
  virtual std::optional<int64_t> token_id(
      std::string_view token) const = 0;  // of one token's text, special or not

 protected:
  std::optional<int64_t> bos_, eos_;
  bool adds_bos_ = false;
  std::string chat_template_;
};

// Holds bytes back until they are whole UTF-8 characters: feed it token_bytes() while streaming.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);  // what can be printed now
  std::string finish();                      // the rest, incomplete sequences as U+FFFD

 private:
  std::string pending_;
};

}  // namespace ee::tokenizer
