#include "ee/infer/model.h"

#include "ee/base/error.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/infer/engine.h"

namespace ee::infer {

std::string Model::exit_name(int64_t exit) const {
  return exit == kFinalLayer ? "final" : std::to_string(exits.at(static_cast<size_t>(exit)).spec.layer);
}

int64_t Model::exit_depth(int64_t exit) const {
  return exit == kFinalLayer ? backbone.config.layers : exits.at(static_cast<size_t>(exit)).spec.depth();
}

Model load_model(const LoadRequest& request) {
  const checkpoint::ModelFolder folder = checkpoint::ModelFolder::open(request.folder);
  if (!request.exits.empty()) {
    folder.exits();  // says so when there are none
  }
  Model model;
  model.backbone = checkpoint::load_backbone(folder, {.precision = request.precision});
  if (folder.has_exits()) {
    model.exits = checkpoint::load_exits(folder, model.backbone, request.exits,
                                         checkpoint::compute_dtype(folder, request.precision, at::kCPU));
  }
  return model;
}

std::unique_ptr<tokenizer::Tokenizer> load_tokenizer(const std::filesystem::path& folder,
                                                     const config::ModelConfig& config) {
  std::unique_ptr<tokenizer::Tokenizer> tokenizer = tokenizer::Tokenizer::load(folder);
  if (tokenizer->vocab_size() > config.vocab_size) {
    throw base::UserError(
        "the tokenizer of {} has {} tokens, but config.json says vocab_size {}: they belong to different "
        "models; "
        "copy the model's own tokenizer files there",
        folder.string(), tokenizer->vocab_size(), config.vocab_size);
  }
  return tokenizer;
}

std::vector<int64_t> encode_prompt(const tokenizer::Tokenizer& tokenizer, const std::string& text) {
  std::vector<int64_t> tokens;
  if (tokenizer.adds_bos() && tokenizer.bos()) {
    tokens.push_back(*tokenizer.bos());
  }
  const std::vector<int64_t> encoded = tokenizer.encode(text);
  tokens.insert(tokens.end(), encoded.begin(), encoded.end());
  return tokens;
}

}  // namespace ee::infer
