// The metadata of a GGUF file below "llama.".
#pragma once

#include <optional>
#include <string>

#include "ee/format/gguf.h"

namespace ee::checkpoint {

// Every UserError names the file and the key.
class LlamaMetadata {
 public:
  explicit LlamaMetadata(const format::GgufFile& file) : file_(file) {}

  // 1 to `largest`.
  int64_t size(const std::string& key, int64_t largest) const;
  int64_t size_or(const std::string& key, int64_t absent, int64_t largest) const;

  // A size that llama.cpp lets differ between layers: one number, or a list with one for each of `layers`,
  // which must all be equal.
  int64_t size_of_all(const std::string& key, int64_t layers, int64_t largest) const;
  int64_t size_of_all_or(const std::string& key, int64_t absent, int64_t layers, int64_t largest) const;

  // Positive and finite. Stored as f32; the shortest decimal that gives the same f32 is what its author wrote
  // (1e-5, not 9.99..e-6).
  double number(const std::string& key) const;
  std::optional<double> find_number(const std::string& key) const;

  // 0, which is how llama.cpp says "none", or as number().
  std::optional<double> find_number_or_zero(const std::string& key) const;

  std::optional<std::string> find_text(const std::string& key) const;

  [[noreturn]] void refuse(const std::string& key, const std::string& problem) const;

 private:
  int64_t in_range(const std::string& key, int64_t value, int64_t largest) const;
  double checked(const std::string& key, double value) const;

  const format::GgufFile& file_;
};

}  // namespace ee::checkpoint
