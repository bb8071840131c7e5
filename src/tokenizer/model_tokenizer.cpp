#include "ee/tokenizer/model_tokenizer.h"

#include <algorithm>

#include "ee/base/error.h"

namespace ee::tokenizer {
namespace {

using base::UserError;

class ModelTokenizer final : public Tokenizer {
 public:
  ModelTokenizer(std::unique_ptr<Tokenizer> all, int64_t rows)
      : Tokenizer(*all), all_(std::move(all)), rows_(rows) {}

  std::vector<int64_t> encode(std::string_view text, bool parse_special) const override {
    std::vector<int64_t> ids = all_->encode(text, parse_special);
    const auto beyond = std::ranges::find_if(ids, [&](int64_t id) { return id >= rows_; });
    if (beyond == ids.end()) return ids;
    throw UserError(
        "the text has the token '{}' with id {}, but the model has embeddings for ids below {} only "
        "(config.json: "
        "vocab_size {}); leave that token out of the text",
        all_->token_bytes(*beyond, true), *beyond, rows_, rows_);
  }

  std::string token_bytes(int64_t token, bool keep_special) const override {
    return all_->token_bytes(token, keep_special);
  }
  int64_t vocab_size() const override { return rows_; }
  std::string fingerprint() const override { return all_->fingerprint(); }
  std::optional<int64_t> token_id(std::string_view token) const override {
    const auto id = all_->token_id(token);
    return id && *id < rows_ ? id : std::nullopt;
  }

 private:
  std::unique_ptr<Tokenizer> all_;
  int64_t rows_;
};

}  // namespace

std::unique_ptr<Tokenizer> load_model_tokenizer(const std::filesystem::path& folder, int64_t rows) {
  std::unique_ptr<Tokenizer> tokenizer = Tokenizer::load(folder);
  if (tokenizer->vocab_size() <= rows) return tokenizer;
  const auto check = [&](const char* role, std::optional<int64_t> id) {
    if (!id || *id < rows) return;
    throw UserError(
        "{}: the tokenizer's {} token has the id {}, but the model has embeddings for ids below {} only "
        "(config.json: vocab_size {}): they belong to different models; copy the model's own tokenizer files "
        "there",
        folder.string(), role, *id, rows, rows);
  };
  check("BOS", tokenizer->adds_bos() ? tokenizer->bos() : std::nullopt);
  check("EOS", tokenizer->eos());
  return std::make_unique<ModelTokenizer>(std::move(tokenizer), rows);
}

}  // namespace ee::tokenizer
