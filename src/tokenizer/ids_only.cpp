#include "ee/tokenizer/ids_only.h"

#include "ee/base/error.h"
#include "ee/tokenizer/model_tokenizer.h"

namespace ee::tokenizer {

namespace {

class IdsOnlyTokenizer : public Tokenizer {
 public:
  IdsOnlyTokenizer(const std::filesystem::path& folder, int64_t vocab_size,
                   std::span<const int64_t> eos_tokens)
      : folder_(folder.string()), vocab_size_(vocab_size) {
    if (!eos_tokens.empty()) eos_ = eos_tokens.front();
  }

  std::vector<int64_t> encode(std::string_view, bool) const override {
    throw base::UserError(
        "this is text, but {} has neither tokenizer.json nor tokenizer.model; put the model's tokenizer "
        "there, or give records with \"tokens\"",
        folder_);
  }
  std::string token_bytes(int64_t, bool) const override { return ""; }
  int64_t vocab_size() const override { return vocab_size_; }
  std::string fingerprint() const override {
    return fmt::format("ids below {}, end {}", vocab_size_, eos_.value_or(-1));
  }
  std::optional<int64_t> token_id(std::string_view) const override { return std::nullopt; }

 private:
  std::string folder_;
  int64_t vocab_size_;
};

}  // namespace

bool has_tokenizer(const std::filesystem::path& folder) {
  return std::filesystem::exists(folder / "tokenizer.json") ||
         std::filesystem::exists(folder / "tokenizer.model");
}

std::unique_ptr<Tokenizer> make_ids_only_tokenizer(const std::filesystem::path& folder, int64_t vocab_size,
                                                   std::span<const int64_t> eos_tokens) {
  return std::make_unique<IdsOnlyTokenizer>(folder, vocab_size, eos_tokens);
}

std::unique_ptr<Tokenizer> load_data_tokenizer(const std::filesystem::path& folder, int64_t rows,
                                               std::span<const int64_t> eos_tokens) {
  if (has_tokenizer(folder)) return load_model_tokenizer(folder, rows);
  return make_ids_only_tokenizer(folder, rows, eos_tokens);
}

}  // namespace ee::tokenizer
