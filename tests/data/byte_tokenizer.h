// A tokenizer whose tokens are bytes: what the data room needs of one, without its tables.
#pragma once

#include <atomic>
#include <string>

#include "ee/tokenizer/tokenizer.h"

namespace ee::data {

class ByteTokenizer : public tokenizer::Tokenizer {
 public:
  explicit ByteTokenizer(std::string name = "bytes", bool with_bos = false) : name_(std::move(name)) {
    adds_bos_ = with_bos;
    bos_ = 256;
  }
  std::vector<int64_t> encode(std::string_view text, bool) const override {
    ++calls;
    std::vector<int64_t> tokens;
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  std::string token_bytes(int64_t token, bool) const override { return {static_cast<char>(token)}; }
  int64_t vocab_size() const override { return 257; }
  std::string fingerprint() const override { return name_; }
  std::optional<int64_t> token_id(std::string_view text) const override {
    return static_cast<unsigned char>(text.at(0));
  }

  mutable std::atomic<int> calls{0};

 private:
  std::string name_;
};

}  // namespace ee::data
